//! What users of Oxcart import: clients, handlers and their context
