"""Errors that a user can act on, each with the exit code of its class.

HeadgateError           1  the program failed
├── UsageError          2  wrong usage or configuration
├── GateBlocked         3  a suite refused what was staged; nothing was published
├── InputMissing        4  an input is missing or unreadable
└── LostRace            5  another run won; safe to try again
"""


class HeadgateError(Exception):
    exit_code = 1


class UsageError(HeadgateError):
    exit_code = 2


class GateBlocked(HeadgateError):
    exit_code = 3


class InputMissing(HeadgateError):
    exit_code = 4


class LostRace(HeadgateError):
    exit_code = 5
