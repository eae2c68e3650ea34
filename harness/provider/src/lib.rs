//! What supplies a cluster: the lab, and a simulation that answers from the model.
