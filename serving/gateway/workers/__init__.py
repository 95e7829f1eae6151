"""What a gateway worker runs beside Flask: greenlets, alarms, state shared with the other workers."""
