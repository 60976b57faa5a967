"""Photos on disk become a Catalogue, Findings, a Split and a store of decoded pixels."""
