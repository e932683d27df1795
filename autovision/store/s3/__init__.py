"""A store on S3, or on a server that speaks its protocol."""

from autovision.store.s3.location import S3Location
from autovision.store.s3.store import S3Store

__all__ = ["S3Location", "S3Store"]
