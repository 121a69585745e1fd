// Package lb holds the example configuration at the top of the repository, which `lb demo` runs.
package lb

import _ "embed"

// Config is the text of config.toml.
//
//go:embed config.toml
var Config []byte
