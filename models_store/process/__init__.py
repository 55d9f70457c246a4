"""What every process of the service needs: logs, and its children."""
