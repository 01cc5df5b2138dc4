"""What starts or wakes runs from outside: schedules, webhooks, changed resources, and events given to the hub."""
