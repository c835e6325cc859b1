"""``python -m unikeel.daemon``: started by the keeper, with the link as descriptor 3."""

import sys

from unikeel.daemon.main import main

sys.exit(main(sys.argv[1:]))
