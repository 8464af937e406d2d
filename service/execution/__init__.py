"""Running commands: as a subprocess within limits, under a supervisor that dies, and kills, with its worker."""
