package server

import (
	"fmt"
	"math"
	"runtime/debug"
	"strconv"
)

// EnvMemoryLimit is the variable that holds the container's memory limit in bytes (limits.memory by resourceFieldRef).
const EnvMemoryLimit = "MEMORY_LIMIT"

// defaultMemory is the limit assumed if none is set: the chart's default.
const defaultMemory = 512 << 20

// LimitMemory sets the limit of the garbage collector to nine tenths of the container's limit; the rest is for memory
// that it does not manage. It returns the container's limit, or 0 if there is none. It changes nothing without a limit,
// or if GOMEMLIMIT is set.
func LimitMemory(getenv func(string) string) (int64, error) {
	value := getenv(EnvMemoryLimit)
	if value == "" {
		return 0, nil
	}
	limit, err := strconv.ParseInt(value, 10, 64)
	if err != nil || limit <= 0 {
		return 0, fmt.Errorf("environment variable %s %q is no number of bytes: set it from limits.memory (downward API)",
			EnvMemoryLimit, value)
	}
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
	return limit, nil
}
