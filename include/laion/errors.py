"""Every failure a user of this package can meet, as a type.

A message says what is wrong, where, and what to do next. The attribute `retryable` says
whether trying again by itself can help; when that is done is in `orchestration/retries.py`.
"""

from __future__ import annotations


class LaionError(Exception):
    """Base of all errors raised on purpose by this package: why, and what to do about it."""

    retryable = False

    def __init__(self, reason: str = "", *, advice: str = "") -> None:
        self.reason = reason
        joint = ". " if advice[:1].isupper() else "; "
        super().__init__(f"{reason}{joint}{advice}" if advice else reason)


# What the user asked for


class BadRequest(LaionError):
    """A parameter or a setting cannot be used as it is."""


class AirflowTooOld(BadRequest):
    """The Airflow that reads the DAGs is older than this package can be used with."""


class UnknownParam(BadRequest):
    """A run was triggered with a key that is not a param of its DAG, such as a misspelt one."""


class BadSetting(BadRequest):
    """An environment variable `LAION_…` has a value that it cannot have."""


class UnknownDataset(BadRequest):
    """No profile has the name given as `dataset`."""


class BadProfile(BadRequest):
    """A dataset profile file has a missing, unknown or malformed key."""


class BadShards(BadRequest):
    """The `shards` expression is malformed or names shards that the dataset does not have."""


class BadSource(BadRequest):
    """The `source` is no URL of a supported kind, or the dataset has no source of its own."""


class BadIdentifier(BadRequest):
    """A table or column name holds characters that are not allowed."""


class UnknownCluster(BadSetting):
    """The ClickHouse server does not know the cluster that the settings name."""


class NeverLoaded(BadRequest):
    """The ledger knows of no run that loaded into the table, so nothing can be repeated."""


class TooManyShards(BadRequest):
    """A run was asked for more shards than Airflow maps tasks in one go."""


class PreflightFailed(BadRequest):
    """A run cannot succeed as things are: the message lists everything that is in its way."""


# The source


class SourceError(LaionError):
    """The source of the dataset did not deliver a file."""


class SourceUnreachable(SourceError):
    """The host of the source cannot be reached or does not answer in time."""

    retryable = True


class SourceBusy(SourceUnreachable):
    """The source asks for patience (429, 503); `wait_s` is for how long, where it tells."""

    def __init__(self, message: str = "", wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class SourceRefused(SourceError):
    """The source answers, but does not let us have the file (401, 403)."""


class SourceMissing(SourceError):
    """The source does not have a file of the shard."""


class SourceUnusable(SourceError):
    """The source answers with something that is not the file: a web page, an endless redirect."""


class SourceIncomplete(SourceError):
    """A download ended with fewer or more bytes than the source announced."""

    retryable = True


class SourceChanged(SourceError):
    """The file at the source became another one while it was fetched, more than once."""

    retryable = True


class ChecksumMismatch(SourceError):
    """A file arrived whole, twice, with other bytes than its known sha256 stands for."""


# The files of a shard


class FormatError(LaionError):
    """A file of the shard is not what the dataset promises."""


class BadNpy(FormatError):
    """An embedding file is no npy file, is truncated, or holds another type or shape."""


class BadMetadata(FormatError):
    """The metadata file is not a Parquet file, or a column is missing or of an unusable type."""


class WrongDimension(FormatError):
    """The vectors have another length than the dataset's."""


class RowCountMismatch(FormatError):
    """Two things that must have equally many rows do not."""


class TooManyRows(FormatError):
    """A shard has more rows than ids are reserved for."""


class BadVectors(FormatError):
    """Vectors are zero, not finite or not of unit length beyond what the run allows."""


class Misaligned(FormatError):
    """Images, texts and metadata do not belong together row by row, or do not seem to."""


# The machine


class DiskFull(LaionError):
    """The staging area has no room for the next file."""


class StorageUnreachable(LaionError):
    """The S3 of the staging area does not answer, or fails."""

    retryable = True


class StorageRefused(LaionError):
    """The staging area does not let us in: a directory of another user, S3 without the right."""


class PortUnavailable(LaionError):
    """A server on this machine cannot listen on the port it was told."""


class StagingGone(LaionError):
    """What was staged for this task is gone or damaged; cleared, the task stages it again."""


# ClickHouse


class ClickHouseError(LaionError):
    """ClickHouse answered with an error."""


class ClickHouseUnreachable(ClickHouseError):
    """No ClickHouse answers at the address of the connection."""

    retryable = True


class ClickHouseAuthFailed(ClickHouseError):
    """ClickHouse refuses the user or the password of the connection."""


class ClickHouseDatabaseMissing(ClickHouseError):
    """The database named by the connection's schema does not exist."""


class ClickHouseBusy(ClickHouseError):
    """ClickHouse is short of memory, connections or time; later it may not be."""

    retryable = True


class StagingUnreadable(ClickHouseError):
    """ClickHouse may not read the staging area on S3."""


class SchemaTooNew(ClickHouseError):
    """The tables were made by a newer release of this package, which this one must not write to."""


class TableMismatch(ClickHouseError):
    """The target table exists and is not one that this dataset can go into."""


class TableGone(ClickHouseError):
    """A table is not there, although it was a moment ago."""


class ValidationFailed(ClickHouseError):
    """What arrived in ClickHouse is not what was sent; loading again may help."""

    retryable = True


class AttemptSuperseded(ClickHouseError):
    """A newer attempt of the same shard was published meanwhile."""


class ShardsNotPublished(ClickHouseError):
    """The run ended with shards that are not in the base table."""


class RunNotPlanned(ShardsNotPublished):
    """The run ended before it was decided which shards it loads."""


class ServerTooOld(ClickHouseError):
    """The server's version lacks something that this package needs."""


class IndexTooLarge(ClickHouseError):
    """The vector index would not fit into the server's memory."""


class IndexBuildFailed(ClickHouseError):
    """The search table was not built; the previous one, if any, stays."""


class IndexBuildLost(ClickHouseError):
    """Another build of the same search table has taken over from this one."""


class SearchTableInUse(ClickHouseError):
    """The search table cannot be replaced because something is attached to it."""


class RecallTooLow(ClickHouseError):
    """The new search table finds too little; it was not put in place."""


class SearchTableMissing(ClickHouseError):
    """A table has no search table yet."""


class RowMissing(ClickHouseError):
    """There is no row with the id that a search starts from."""


# Encoders


class BadModel(LaionError):
    """A model's directory lacks a file, or holds one that was altered or cannot be used."""


class ModelNotFetched(LaionError):
    """A model could not be fetched from the hub, or does not do what it should."""


class EncodingFailed(LaionError):
    """A model gave no usable vector for a text or a picture."""


class EncoderMissing(LaionError):
    """Nothing at hand turns words, or pictures, into vectors of this dataset."""


class BadImage(LaionError):
    """A file is no picture that the encoders take."""


# The functions inside ClickHouse


class UdfError(LaionError):
    """The functions `encode_text` and `encode_image` were not deployed."""


class UdfsNotPossible(UdfError):
    """This ClickHouse cannot be given functions from here; nothing was changed."""


class UdfTargetUnwritable(UdfError):
    """A directory of the ClickHouse server cannot be written."""


class UdfHostUnreachable(UdfError):
    """A host that functions are deployed to does not answer over SSH."""

    retryable = True


class UdfHostRefused(UdfError):
    """A host is not the known one by its key, or does not let us in over SSH."""


class DeployInProgress(UdfError):
    """Another deployment of functions holds the target."""

    retryable = True


class UdfCheckFailed(UdfError):
    """The functions do not work as they should; the previous version is in place again."""


# The sample dataset


class SampleModelMissing(LaionError):
    """The package with the sample's text model is not installed."""


class SampleNotWritable(LaionError):
    """The directory of the sample dataset cannot be written."""


class SampleMissing(LaionError):
    """There is no directory to serve the sample dataset from."""


# The embedded ClickHouse


class EmbeddedFailed(LaionError):
    """The engine of the embedded ClickHouse does not start."""


class EmbeddedPathLocked(LaionError):
    """Another process owns the directory of the embedded ClickHouse."""


class EmbeddedPathUnusable(LaionError):
    """The directory of the embedded ClickHouse cannot be made or written."""


# The demo


class ProcessFailed(LaionError):
    """A part of the demo's stack did not start."""


class StillRunning(LaionError):
    """Processes of the demo's stack could not be ended."""


class StackBusy(LaionError):
    """Another command is starting or stopping the same stack of the demo."""


class AirflowRefused(LaionError):
    """Airflow's REST API answered a call with an error."""


class DemoFailed(LaionError):
    """The demo's run ended otherwise than it should."""
