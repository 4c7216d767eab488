"""Architecture search: supernets, proxies, and choosing among what they rank."""
