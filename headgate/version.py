"""The version of headgate; it enters every build key, so a new one rebuilds what it may have changed."""

VERSION = "0.1.0"
