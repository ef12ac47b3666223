//! Health follows readiness.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::MissedTickBehavior};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    admin::Unready,
    component::{Component, Readiness},
};

const PERIOD: Duration = Duration::from_secs(1);
/// A check that takes longer counts as a no.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// The name of the whole server in grpc.health.v1.
const WHOLE_SERVER: &str = "";

struct Subject {
    name: &'static str,
    services: &'static [&'static str],
    readiness: Arc<dyn Readiness>,
}

/// Asks components whether they are ready and tells the world.
pub(super) struct Probe {
    reporter: HealthReporter,
    subjects: Vec<Subject>,
}

impl Probe {
    pub(super) fn new(reporter: HealthReporter, components: &[Box<dyn Component>]) -> Self {
        let subjects = components.iter().map(|component| Subject {
            name: component.name(),
            services: component.grpc_services(),
            readiness: component.readiness(),
        });
        Self { reporter, subjects: subjects.collect() }
    }

    /// Says that nothing is served.
    pub(super) async fn not_serving(&self) {
        for service in self.subjects.iter().flat_map(|subject| subject.services).chain([&WHOLE_SERVER]) {
            self.reporter.set_service_status(service, ServingStatus::NotServing).await;
        }
    }

    /// Follows readiness for ever.
    pub(super) async fn watch(&self, unready: &watch::Sender<Unready>) {
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let reasons = self.ask().await;
            unready.send_if_modified(|current| {
                let changed = *current != reasons;
                if changed {
                    tracing::info!(ready = reasons.is_empty(), ?reasons, "readiness changed");
                    *current = reasons;
                }
                changed
            });
        }
    }

    async fn ask(&self) -> Unready {
        let mut reasons = Vec::new();
        for subject in &self.subjects {
            let reason = match tokio::time::timeout(CHECK_TIMEOUT, subject.readiness.check()).await {
                Ok(Ok(())) => None,
                Ok(Err(reason)) => Some(reason.to_string()),
                Err(_) => Some(format!("no answer within {CHECK_TIMEOUT:?}")),
            };
            for service in subject.services {
                self.reporter.set_service_status(service, serving(reason.is_none())).await;
            }
            reasons.extend(reason.map(|reason| format!("{}: {reason}", subject.name)));
        }
        self.reporter.set_service_status(WHOLE_SERVER, serving(reasons.is_empty())).await;
        reasons
    }
}

const fn serving(ready: bool) -> ServingStatus {
    if ready { ServingStatus::Serving } else { ServingStatus::NotServing }
}
