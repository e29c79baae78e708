package plan

import (
	"time"
)

// DefaultTTL is the lifetime of a sandbox after the last `fork` without --ttl, unless the chart sets another.
const DefaultTTL = 8 * time.Hour
