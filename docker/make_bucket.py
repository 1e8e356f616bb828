"""Make the bucket that PNC_STORE_URL names, unless it is there."""

import os
from urllib.parse import urlsplit

import boto3


def main() -> None:
    """Ask with the keys that are set."""
    client = boto3.client("s3", endpoint_url=os.environ["PNC_STORE_ENDPOINT"])
    name = urlsplit(os.environ["PNC_STORE_URL"]).netloc
    if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=name)


if __name__ == "__main__":
    main()
