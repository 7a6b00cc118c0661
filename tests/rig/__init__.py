"""What reliability runs stand on: a PagerDuty that lies, a network that fails, a load with a ledger, and an oracle."""
