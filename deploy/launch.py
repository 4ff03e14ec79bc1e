"""What spark-submit runs: the headgate command line, from the archive beside this file or in the working folder.

    spark-submit deploy/launch.py run conf/flights.yaml

`make build` makes `dist/headgate.zip`. It goes to the executors too: the same bytes named .whl would import on the
driver and fail there. Set HEADGATE_ZIP to name another archive.
"""

import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
named = os.environ.get("HEADGATE_ZIP")
places = [named] if named else [os.path.abspath("headgate.zip"), os.path.join(here, "headgate.zip")]
places += [] if named else [os.path.join(here, "..", "dist", "headgate.zip")]
archive = next((p for p in places if os.path.isfile(p)), None)
if archive is None:
    sys.exit(f"headgate: no headgate.zip here ({', '.join(places)}); `make build` makes it, HEADGATE_ZIP names another")
os.environ["HEADGATE_ZIP"] = archive
sys.path.insert(0, archive)

from headgate.jobs.cli.main import main  # noqa: E402

main()
