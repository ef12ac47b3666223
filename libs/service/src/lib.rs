//! The chassis of every Oxcart service: config, telemetry, health, reflection, shutdown, channels
