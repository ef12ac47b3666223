//! The dispatcher service: queues, leases, retries; the only owner of Redis
