"""Create the bucket in PNC_STORE_URL, unless it exists."""

import os
from urllib.parse import urlsplit

import boto3


def main() -> None:
    """Create the bucket with the keys in the environment."""
    client = boto3.client("s3", endpoint_url=os.environ["PNC_STORE_ENDPOINT"])
    name = urlsplit(os.environ["PNC_STORE_URL"]).netloc
    if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=name)


if __name__ == "__main__":
    main()
