"""Databases for the peers that live in PostgreSQL, on the hub's own server."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg


async def make_database(database: Callable[[str], str], name: str) -> str:
    """Make a database, empty also when it was there; returns its address."""
    await drop_database(database, name)
    connection = await asyncpg.connect(database("postgres"))
    try:
        await connection.execute(f"create database {name}")
    finally:
        await connection.close()
    return database(name)


async def drop_database(database: Callable[[str], str], name: str) -> None:
    """Remove a database and who is connected to it, if there is one."""
    connection = await asyncpg.connect(database("postgres"))
    try:
        await connection.execute(f"drop database if exists {name} with (force)")
    finally:
        await connection.close()


async def ask(address: str, query: str) -> str:
    """The one value that a query gives, as text."""
    connection = await asyncpg.connect(address)
    try:
        return str(await connection.fetchval(query))
    finally:
        await connection.close()
