"""Prometheus metrics of the serving process."""

from prometheus_client import Counter, Gauge, Histogram

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

REQUESTS = Counter("pnc_requests_total", "Predictions by outcome.", ["deployment", "generation", "outcome"])
TURNED_AWAY = Counter("pnc_turned_away_total", "Refused or abandoned requests, by reason.", ["reason"])
QUEUE_SECONDS = Histogram("pnc_queue_seconds", "Waiting time of a request for the device.", buckets=_FAST)
COMPUTE_SECONDS = Histogram("pnc_compute_seconds", "Time to run one batch.", buckets=_FAST)
BATCH_IMAGES = Histogram("pnc_batch_images", "Images in one batch.", buckets=(1, 2, 4, 8, 16, 32, 64))
SWAP_SECONDS = Histogram("pnc_swap_seconds", "Time from reading a new revision to serving it.", buckets=_FAST)
DRAIN_SECONDS = Histogram(
    "pnc_drain_seconds", "Time from serving a newer revision to the last answer of the old one.", buckets=_FAST
)
CACHE_BYTES = Gauge("pnc_module_cache_bytes", "Bytes of modules in memory.")
CACHE_EVICTIONS = Counter("pnc_module_cache_evictions_total", "Modules removed from memory.")
CANARY_REQUESTS = Counter(
    "pnc_canary_requests_total",
    "Requests to deployments with a canary, by the set of modules that answered.",
    ["deployment", "module_set"],
)
CANARY_COMPARISONS = Counter(
    "pnc_canary_comparisons_total",
    "Compared images whose predicted class agreed or differed, and requests that were dropped or failed to compare.",
    ["deployment", "outcome"],
)
CANARY_LOGIT_DIFFERENCE = Histogram(
    "pnc_canary_logit_difference",
    "Largest difference of a logit of the target's classes between the two sets of modules, of each compared image.",
    ["deployment"],
    buckets=(1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10),
)
