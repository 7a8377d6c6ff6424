"""Identifiers: readable job names, MLflow run ids, time-ordered event ids, secrets."""

from __future__ import annotations

import os
import random
import secrets
import time
import uuid

_ADJECTIVES = (
    "amber ample blue bold brave brisk calm clever crisp dapper eager early fair fast fine fond gentle giddy glad "
    "good grand great green happy helpful hungry icy jolly keen kind lively loyal lucky mellow mighty modest neat "
    "nice olive patient placid plucky polite proud quick quiet ready red sharp shy silver sincere sleepy smart "
    "solid strong sunny sweet tidy tough upbeat vivid warm wise witty yellow zen"
).split()
_NOUNS = (
    "acorn anchor apple arch badge banana basil beach bean bird boat book bread bridge brook cabin camel carrot "
    "castle cloud clover cork crane date dove drum eagle egg energy fig fish flag floor forest fork garden glass "
    "grape hat heart honey house island jacket jewel kale kettle key kitten lamp leaf lemon lime lion loquat "
    "mango market moon napkin night oak ocean onion orange owl parrot peach pear pen pepper pillow plum potato "
    "queen rice river roof root school seed shoe snail soccer spoon star sugar sun table tent thread tomato "
    "tongue train tree truck turnip vase wheel window wire yacht yam"
).split()
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def job_name() -> str:
    """A new job name in Azure's shape: `adjective_noun_10chars`."""
    tail = "".join(secrets.choice(_LETTERS) for _ in range(10))
    return f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_NOUNS)}_{tail}"


def run_name() -> str:
    """A name to tell runs apart by eye, as MLflow gives them: `adjective-noun-123`. Not an identity."""
    return f"{random.choice(_ADJECTIVES)}-{random.choice(_NOUNS)}-{random.randrange(1000)}"


def hex32() -> str:
    """32 hexadecimal characters, as MLflow names its runs."""
    return uuid.uuid4().hex


def uuid7() -> str:
    """A time-ordered UUID (RFC 9562, version 7): 48 bits of milliseconds, then random bits."""
    millis = time.time_ns() // 1_000_000
    value = (millis << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def secret(length: int = 43) -> str:
    """A random secret of `length` letters and digits; 43 of them hold more than 256 bits."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(secrets.choice(alphabet) for _ in range(length))
