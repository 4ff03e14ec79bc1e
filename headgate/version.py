"""The versions of headgate and of what it is pinned to."""

VERSION = "0.1.0"
PYTHONS = ((3, 11), (3, 14))  # the first and the last minor version that run
# What both PyPI and Maven Central hold; a bump must find both halves. pyproject.toml and deploy/jars/pom.xml repeat
# them, and a test compares.
SPARK = "4.1.1"
DELTA = "4.4.0"
HADOOP = "3.4.2"  # of Spark
AWS = "2.29.52"  # of Hadoop: the SDK that hadoop-aws is built with
GREAT_EXPECTATIONS = "1.24.1"
