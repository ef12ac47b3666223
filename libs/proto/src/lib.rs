//! The contracts of Oxcart: generated code, the descriptor set for reflection, and conversions to the domain.
//!
//! Conversions are fallible functions beside the types that they read; what they refuse is a [`oxcart_types::Violations`]
//! with the path of every field.

pub mod convert;

/// Generated from `proto/oxcart/*/v1`.
#[expect(missing_docs, reason = "generated; the comments of the contracts are on the types, the generator adds plumbing without")]
#[expect(clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod pb {
    pub mod common {
        pub mod v1 {
            tonic::include_proto!("oxcart.common.v1");
        }
    }
    pub mod submission {
        pub mod v1 {
            tonic::include_proto!("oxcart.submission.v1");
        }
    }
    pub mod dispatcher {
        pub mod v1 {
            tonic::include_proto!("oxcart.dispatcher.v1");
        }
    }
    pub mod worker {
        pub mod v1 {
            tonic::include_proto!("oxcart.worker.v1");
        }
    }
    pub mod monitor {
        pub mod v1 {
            tonic::include_proto!("oxcart.monitor.v1");
        }
    }
}

/// All contracts with their comments, for reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/oxcart.bin"));
