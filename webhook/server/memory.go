package server

import (
	"fmt"
	"math"
	"runtime/debug"
	"strconv"
)

// EnvMemoryLimit is the variable by which the kubelet tells the container's memory limit, in bytes (limits.memory by
// resourceFieldRef).
const EnvMemoryLimit = "MEMORY_LIMIT"

// defaultMemory is what a process goes by that is told no limit: the chart's default.
const defaultMemory = 512 << 20

// LimitMemory has the garbage collector keep the process below nine tenths of its container's limit, of which the
// rest is for what it does not know of; and returns the limit, 0 where it is told none. Such a process, or one that
// has GOMEMLIMIT, goes on as it is.
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
