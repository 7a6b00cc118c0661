"""python -m alertrouter"""

from alertrouter.cli import main

main()
