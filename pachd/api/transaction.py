"""transaction_v2: requests collected in a log, executed together when the transaction is finished."""

from typing import Any

from google.protobuf.message import Message

from pachd.api.keys import required_commit
from pachd.api.service import Call, Service, read, write
from pachd.errors import InvalidArgument, PachError
from pachd.pfs import transactions
from pachd.proto import transaction_pb2
from pachd.store import Snapshot, Txn


class API(Service):
    name = "transaction_v2.API"

    @write()
    def StartTransaction(self, txn: Txn, request: transaction_pb2.StartTransactionRequest, call: Call) -> Any:
        return transactions.start(txn).transaction

    @read
    def InspectTransaction(self, snapshot: Snapshot, request: Any, call: Call) -> Any:
        return transactions.inspect(snapshot, request.transaction.id)

    @read
    def ListTransaction(self, snapshot: Snapshot, request: Any, call: Call) -> Any:
        return transaction_pb2.TransactionInfos(transaction_info=transactions.list_all(snapshot))

    @write()
    def DeleteTransaction(self, txn: Txn, request: transaction_pb2.DeleteTransactionRequest, call: Call) -> None:
        transactions.delete(txn, request.transaction.id)

    @write()
    def FinishTransaction(self, txn: Txn, request: transaction_pb2.FinishTransactionRequest, call: Call) -> Any:
        return transactions.finish(txn, request.transaction.id)

    @write()
    def BatchTransaction(self, txn: Txn, request: transaction_pb2.BatchTransactionRequest, call: Call) -> Any:
        return transactions.batch(txn, list(request.requests))

    @write()
    def DeleteAll(self, txn: Txn, request: transaction_pb2.DeleteAllRequest, call: Call) -> None:
        transactions.delete_all(txn)


def append(txn: Txn, transaction: str, field: str, request: Message) -> Any:
    """Append a request to a transaction; returns its TransactionResponse, as a dry run of the whole log gave it."""
    _refuse(field, request)
    wrapped = transaction_pb2.TransactionRequest()
    getattr(wrapped, field).CopyFrom(request)
    try:
        return transactions.append(txn, transaction, wrapped)
    except PachError as err:
        raise (err.wrapped("delete repo") if field == "delete_repo" else err) from None


def _refuse(field: str, request: Any) -> None:
    """Raise an error for what is wrong with a request by itself: it never becomes a part of the transaction."""
    if field == "delete_repo" and not request.HasField("repo"):
        raise InvalidArgument("no repo specified")
    if field == "squash_commit_set" and not request.HasField("commit_set"):
        raise PachError("commitset cannot be nil")
    if field == "start_commit" and request.HasField("parent"):
        required_commit(request, "parent")


SERVICES = [API]
