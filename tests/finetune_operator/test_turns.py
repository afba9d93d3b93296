"""Turns at a target: one at a time, in order, and nobody is held."""

from __future__ import annotations

from finetune_operator.observed import RunKey
from finetune_operator.turns import Turns

A, B, C = (RunKey("demo", name) for name in "abc")


def test_one_run_is_at_a_target_and_others_are_at_other_targets():
    turns = Turns(lambda key: None)

    assert turns.take("demo/chat", A)
    assert not turns.take("demo/chat", B)
    assert turns.take("demo/shop", B)


def test_those_that_wait_are_called_one_by_one_in_their_order():
    called: list[RunKey] = []
    turns = Turns(called.append)
    turns.take("demo/chat", A)
    for key in (B, C, B):
        turns.take("demo/chat", key)

    turns.end("demo/chat")
    assert called == [B]
    assert turns.take("demo/chat", B)
    turns.end("demo/chat")

    assert called == [B, C]
    assert turns.waiting == 0


def test_one_that_was_quicker_than_its_call_is_not_called_again():
    called: list[RunKey] = []
    turns = Turns(called.append)
    turns.take("demo/chat", A)
    for key in (B, C):
        turns.take("demo/chat", key)

    turns.end("demo/chat")
    assert turns.take("demo/chat", C)
    assert not turns.take("demo/chat", B)
    turns.end("demo/chat")

    assert called == [B, B]
