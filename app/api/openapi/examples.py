"""One example of every schema of the OpenAPI document. A test validates each example against its schema."""

from typing import Any

_DAY, _LATER = "2026-01-31T09:00:00Z", "2026-01-31T09:00:14Z"
_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_THIN = "1a0dc227b5aa78f8400838aec14099a5e23b9da69ff5ee37dffd8b6b40003a95"
_FINGERPRINT = f"sha256:{_DIGEST}"
_ID, _OTHER = "019aa3b0c1d27f0e9d5c6b7a8f901234", "019aa3b0c1d27f0e9d5c6b7a8f905678"
_DIGITS = [str(i) for i in range(10)]
_SPEC = {
    "architecture": "cnn",
    "classes": _DIGITS[:5],
    "input_size": [1, 8, 8],
    "mean": [0.3],
    "std": [0.37],
    "options": {"width": 32},
}


def _figure(old: float, new: float, low: float, high: float, numbers: int) -> dict[str, object]:
    return {"old": old, "new": new, "average": round((old + new) / 2, 6), "low": low, "high": high, "numbers": numbers}


_VERDICT = {
    "images": 400,
    "fitting": "held out",
    "figures": {
        "module": _figure(0.972, 0.966667, 0.949035, 0.979964, 62000),
        "ensemble": _figure(0.944, 0.933333, 0.913243, 0.95508, 110000),
        "probe": _figure(0.928, 0.906667, 0.889152, 0.936982, 5200),
        "alone": _figure(0.988, 0.0, 0.485178, 0.503561, 0),
    },
    "best": "ensemble",
    "difference": 0.030667,
    "low": 0.015891,
    "high": 0.050254,
    "outcome": "better",
    "text": "3.1 points above the best alternative, both whole networks side by side (90 %: 1.6 to 5.0)",
}
_ADVICE = {
    "accuracy": 0.964, "low": 0.941, "high": 0.98, "old": 0.972, "new": 0.956, "images": 396, "numbers": 110000,
    "text": "4.7 points above the best alternative, a linear probe on the target (90 %: 2.2 to 7.1)",
    "more_per_class": 198.0, "more_accuracy": 0.971, "seconds": 8.4,
}  # fmt: skip
_RECOMMENDATION = {
    "source": "digits-high@1",
    "classes": ["7", "8", "9"],
    "advice": _ADVICE,
    "probe": 0.917,
    "no_advice": None,
}
_CONFIG = {"classes": ["7", "8", "9"], "keep": 0.5, "seed": 0}
_JOB = {
    "id": f"job_{_ID}",
    "state": "succeeded",
    "stage": "calibrating",
    "progress": 1.0,
    "target": "digits-low@1",
    "source": "digits-high@1",
    "dataset": f"ds_{_ID}",
    "config": _CONFIG,
    "device": "any",
    "size": "small",
    "max_seconds": None,
    "module": f"mod_{_ID}",
    "problem": None,
    "attempts": 0,
    "created_at": _DAY,
    "started_at": _DAY,
    "finished_at": _LATER,
}
_UNREADABLE = {"row": 17, "name": "7/scan.png", "reason": "expected an image (PNG, JPEG), got an empty file"}
_WARNING = {"code": "duplicates", "detail": "3 of 378 images are exact copies of others, such as rows 4 and 9"}
_FINDINGS = {
    "good": 377,
    "unreadable": 1,
    "first_unreadable": [_UNREADABLE],
    "exact": 3,
    "near": 0,
    "across": 0,
    "examples": [[4, 9]],
    "constant": 0,
    "distinct": dict.fromkeys(_DIGITS, 37),
    "sizes": {"shorter_smallest": 8, "shorter_median": 8, "shorter_largest": 8},
    "warnings": [_WARNING],
}
_TRIAL = {
    "target_position": "blocks.0",
    "source_position": "blocks.0",
    "round": 1,
    "score": 0.97,
    "old": 0.98,
    "new": 0.96,
    "parameters": 52479,
    "macs": None,
    "seconds": 1.4,
}
_CANARY = {
    "modules": [f"mod_{_ID}", f"mod_{_OTHER}"],
    "share": 0.1,
    "mode": "canary",
    "id": f"can_{_ID}",
    "counts": {
        "main_requests": 905,
        "canary_requests": 95,
        "agreed": 91,
        "differed": 3,
        "mean_logit_difference": 0.25,
        "dropped": 1,
        "failed": 0,
    },
}
_WEBHOOK = {
    "id": f"whk_{_ID}",
    "url": "https://hooks.example/pnc",
    "events": ["job.failed", "job.succeeded"],
    "description": "",
    "enabled": True,
    "failing_since": None,
    "problem": None,
    "created_at": _DAY,
}
_KEY = {
    "id": f"key_{_ID}",
    "name": "ci",
    "hint": "pnc_xxxxxx",
    "scopes": ["read", "jobs"],
    "parent_id": None,
    "created_at": _DAY,
    "expires_at": _LATER,
    "revoked_at": None,
}

_ANSWERING = {
    "deployment": "digits",
    "generation": 2,
    "target": "digits-low@1",
    "target_fingerprint": _FINGERPRINT,
    "module_set": "main",
    "modules": [{"id": f"mod_{_ID}", "digest": _DIGEST}],
}
_SCORES = [{"name": "7", "probability": 0.9975, "logit": 8.25}, {"name": "4", "probability": 0.0025, "logit": 2.25}]
EXAMPLES: dict[str, dict[str, Any]] = {
    "Revision": {
        "generation": 2,
        "target": "digits-low@1",
        "modules": [f"mod_{_ID}"],
        "refused": False,
        "created_at": _LATER,
    },
    "Replica": {"id": f"rep_{_ID}", "generation": 2, "problem": None},
    "Key": _KEY,
    "KeySecret": {**_KEY, "secret": "pnc_" + 43 * "x" + 8 * "0"},
    "Workspace": {
        "name": "default",
        "key": f"key_{_ID}",
        "scopes": ["admin"],
        "max_bytes": 10**9,
        "bytes": 123456,
        "max_jobs": 10,
        "jobs": 1,
        "requests_per_minute": 600,
        "require_signature": False,
        "retention_days": None,
    },
    "TrustedKey": {"name": "release", "key": f"ed25519:{_DIGEST}", "created_at": _DAY},
    "Signature": {"module_id": f"mod_{_ID}", "key": f"ed25519:{_DIGEST}", "text": "{}", "created_at": _DAY},
    "AuditEntry": {
        "id": f"aud_{_ID}",
        "at": _DAY,
        "key_id": f"key_{_ID}",
        "who": "ci",
        "action": "create_job",
        "method": "POST",
        "path": "/v1/cloning-jobs",
        "address": "127.0.0.1",
        "outcome": "201",
        "request_id": f"req_{_ID}",
    },
    "Health": {"status": "ready"},
    "Model": {
        "id": f"mdl_{_ID}",
        "name": "digits-low",
        "description": "Digits 0 to 4",
        "last_version": 1,
        "aliases": {"production": 1},
        "clonable": None,
        "created_at": _DAY,
        "archived_at": None,
    },
    "ModelChange": {"description": "Digits 0 to 4, second attempt"},
    "Version": {
        "id": f"ver_{_ID}",
        "ref": "digits-low@1",
        "number": 1,
        "status": "ready",
        "spec": _SPEC,
        "licence": "Apache-2.0",
        "origin": None,
        "digest": _DIGEST,
        "bytes": 415484,
        "fingerprint": _FINGERPRINT,
        "parameters": 102821,
        "macs": 1810000,
        "accuracy": 0.989,
        "accuracy_images": 189,
        "accuracy_dataset": f"ds_{_ID}",
        "checking": None,
        "check": {
            "outcome": "fine",
            "detail": "accuracy 98.9 % (96.2 % to 99.7 %) of 189 images, chance 20 %",
            "dataset": f"ds_{_ID}",
            "accuracy": 0.989,
            "low": 0.962,
            "high": 0.997,
            "images": 189,
            "chance": 0.2,
            "cause": None,
            "checked_at": _DAY,
        },
        "problem": None,
        "created_at": _DAY,
        "archived_at": None,
    },
    "Import": {
        "id": f"imp_{_ID}",
        "state": "succeeded",
        "source": "torchvision/resnet18@IMAGENET1K_V1",
        "model": "digits-low",
        "version": "digits-low@1",
        "progress": 1.0,
        "message": "added digits-low@1",
        "problem": None,
        "created_at": _DAY,
        "finished_at": _LATER,
    },
    "Origin": {
        "source": "torchvision/resnet18@IMAGENET1K_V1",
        "revision": "IMAGENET1K_V1",
        "url": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "file": "resnet18-f37072fd.pth",
        "digest": _DIGEST,
    },
    "Alias": {"alias": "production", "version": 1, "updated_at": _DAY},
    "ClassName": {"number": 1, "name": "goldfish, Carassius auratus", "aliases": ["goldfish", "Carassius auratus"]},
    "AliasSet": {"version": 1},
    "SpecCheck": {"spec": _SPEC},
    "SpecVerdict": {"valid": True, "problems": []},
    "Part": {
        "number": 1,
        "offset": 0,
        "bytes": 415484,
        "url": "https://s3.example/zoo/incoming/up_019aa3b0?partNumber=1&X-Amz-Signature=9f86d081",
    },
    "Upload": {
        "id": f"up_{_ID}",
        "status": "open",
        "bytes": 415484,
        "digest": _DIGEST,
        "received": 0,
        "content_url": f"/v1/uploads/up_{_ID}/content",
        "parts": None,
        "created_at": _DAY,
        "completed_at": None,
    },
    "Dataset": {
        "id": f"ds_{_ID}",
        "name": "digits",
        "rows": 378,
        "classes": _DIGITS,
        "counts": dict.fromkeys(_DIGITS, 37),
        "digest": _DIGEST,
        "bytes": 60000,
        "created_at": _DAY,
        "archived_at": None,
        "inspection": "done",
        "inspected": 378,
        "findings": _FINDINGS,
        "problem": None,
    },
    "DatasetWarning": _WARNING,
    "Unreadable": _UNREADABLE,
    "Findings": _FINDINGS,
    "Job": _JOB,
    "Verdict": {
        "valid": True,
        "problems": [],
        "estimate": {"old_images": 190, "new_images": 111, "macs": 1810000, "module_parameters": 61692},
        "warnings": [_WARNING],
    },
    "KnowingVersion": {"version": "digits-high@1", "accuracy": 0.98},
    "KnownClass": {"name": "7", "versions": [{"version": "digits-high@1", "accuracy": 0.98}]},
    "ClassSearch": {
        "classes": [{"name": "7", "versions": [{"version": "digits-high@1", "accuracy": 0.98}]}],
        "total": 1,
    },
    "RecommendationRequest": {
        "target": "digits-low",
        "classes": ["7", "8", "9"],
        "dataset": f"ds_{_ID}",
        "most": 8,
    },
    "Recommendation": _RECOMMENDATION,
    "Recommendations": {
        "best": "digits-high@1",
        "text": "digits-high@1: 96.4 % (90 %: 94.1 to 98.0) is expected, beside a linear probe on the target alone, "
        "91.7 %",
        "sources": [_RECOMMENDATION],
        "others": 0,
    },
    "Event": {
        "id": f"evt_{_ID}",
        "seq": 7,
        "type": "trial",
        "state": "running",
        "stage": "inserting",
        "progress": 0.4,
        "message": "blocks.0 -> blocks.0: 0.97",
        "data": _TRIAL,
        "created_at": _DAY,
    },
    "Attempt": {
        "number": 1,
        "worker": "gpu-host-3-4711",
        "started_at": _DAY,
        "ended_at": _LATER,
        "outcome": "succeeded",
        "reason": "cloned 7, 8, 9",
    },
    "Trial": {"id": f"trl_{_ID}", "attempt": 1, "created_at": _DAY, **_TRIAL},
    "Module": {
        "id": f"mod_{_ID}",
        "job": f"job_{_ID}",
        "target": "digits-low@1",
        "source": "digits-high@1",
        "target_fingerprint": _FINGERPRINT,
        "classes": ["7", "8", "9"],
        "bundles": [
            {"payload": "full", "digest": _DIGEST, "bytes": 219468},
            {"payload": "thin", "digest": _THIN, "bytes": 11656},
        ],
        "verdict": _VERDICT,
        "created_at": _LATER,
        "archived_at": None,
    },
    "Archiving": {"archived": True},
    "Purge": {
        "kind": "dataset",
        "id": f"ds_{_ID}",
        "name": f"ds_{_ID}",
        "rows": [f"ds_{_ID}"],
        "objects": [{"digest": _DIGEST, "bytes": 0, "fate": "gone", "kept_by": None}],
        "obstacles": [],
        "purged_at": _LATER,
    },
    "Manifest": {
        "module": f"mod_{_ID}",
        "manifest": {"format": "pnc-bundle/1", "payload": "full", "classes": ["7", "8", "9"], "kept_fraction": 0.498},
        "evidence": {"confusion": {"classes": ["0", "7"], "before": [[9, 0], [8, 0]], "after": [[9, 0], [0, 8]]}},
    },
    "Deployment": {
        "id": f"dep_{_ID}",
        "name": "digits",
        "generation": 2,
        "desired": {"target": "digits-low@1", "modules": [f"mod_{_ID}"]},
        "observed": {"generation": 2, "problem": None, "at": _LATER},
        "canary": _CANARY,
        "created_at": _DAY,
    },
    "Canary": _CANARY,
    "Webhook": _WEBHOOK,
    "WebhookSecret": {**_WEBHOOK, "secret": "whsec_ZXhhbXBsZSBrZXkgb2YgdGhpcnR5LXR3byBieXRlcyE="},
    "Delivery": {
        "id": f"dlv_{_ID}",
        "type": "job.succeeded",
        "body": f'{{"type":"job.succeeded","timestamp":"{_LATER}","data":{{"job":"job_{_ID}"}}}}',
        "state": "delivered",
        "tries": 1,
        "due_at": _LATER,
        "status": 204,
        "answer": "",
        "error": None,
        "created_at": _LATER,
        "tried_at": _LATER,
        "delivered_at": _LATER,
    },
    "Prediction": {**_ANSWERING, "classes": _SCORES},
    "Predictions": {
        **_ANSWERING,
        "images": [{"name": f"{n}.png", "classes": _SCORES, "problem": None} for n in (1, 2)],
    },
}


def add_examples(schemas: dict[str, Any]) -> None:
    """Add an example to each schema of an OpenAPI document. The example of a page holds one item."""
    for name, schema in schemas.items():
        item = name.removeprefix("Page_").removesuffix("_")
        if item in EXAMPLES:
            page = {"data": [EXAMPLES[item]], "has_more": False, "next_cursor": None}
            schema.setdefault("examples", [page if item != name else EXAMPLES[item]])
