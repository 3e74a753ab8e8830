"""Mail goes out: destinations, sites, pools and connections."""
