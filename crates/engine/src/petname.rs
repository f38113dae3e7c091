//! Names for containers that their clients give none.

/// A name of two words that nobody has yet.
pub(crate) fn free(taken: impl Fn(&str) -> bool) -> String {
    const FIRST: [&str; 32] = [
        "amber", "brave", "calm", "clear", "coral", "deep", "eager", "early", "fair", "gentle", "green", "happy",
        "high", "jolly", "keen", "kind", "light", "lucky", "mild", "noble", "open", "plain", "proud", "quick", "quiet",
        "salty", "sandy", "sunny", "swift", "tidal", "warm", "wise",
    ];
    const SECOND: [&str; 32] = [
        "archipelago",
        "atoll",
        "bay",
        "beach",
        "cape",
        "cay",
        "cliff",
        "coast",
        "cove",
        "delta",
        "dune",
        "fjord",
        "gulf",
        "harbour",
        "haven",
        "holm",
        "inlet",
        "isthmus",
        "key",
        "lagoon",
        "lighthouse",
        "marsh",
        "mole",
        "pier",
        "quay",
        "reef",
        "ria",
        "sandbar",
        "shoal",
        "skerry",
        "sound",
        "strait",
    ];
    loop {
        let [a, b, c, d] = crate::random::<4>();
        let name = format!("{}_{}", FIRST[usize::from(a) % 32], SECOND[usize::from(b) % 32]);
        if !taken(&name) {
            return name;
        }
        let numbered = format!("{name}{}", u16::from_ne_bytes([c, d]));
        if !taken(&numbered) {
            return numbered;
        }
    }
}
