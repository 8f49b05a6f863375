"""Pachyderm repos as source and target storages of stock Label Studio: a Django app, no fork."""
