"""Parts of a gateway worker beside Flask: greenlets, time limits, memory shared by the workers."""
