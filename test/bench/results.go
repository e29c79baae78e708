package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Targets of the fork's median: beyond the plain one's, and in all.
const (
	beyond = 300 * time.Millisecond
	inAll  = 2 * time.Second
)

// results writes what was measured, as Markdown.
func results(plain, fork []time.Duration) string {
	differences := make([]time.Duration, len(plain))
	for i := range plain {
		differences[i] = fork[i] - plain[i]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| ms, of %d each | median | min | p10 | p90 | max |\n|---|---|---|---|---|---|\n", len(plain))
	row := func(what string, d []time.Duration) {
		s := slices.Sorted(slices.Values(d))
		at := func(q float64) int64 { return s[int(q*float64(len(s)-1)+0.5)].Milliseconds() }
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d |\n", what, median(d).Milliseconds(), s[0].Milliseconds(), at(0.1), at(0.9), s[len(s)-1].Milliseconds())
	}
	row("`kubectl create deployment` to the first 200", plain)
	row("`kubectl sandbox fork` to the first keyed 200", fork)
	row("difference, pair by pair", differences)
	more := median(fork) - median(plain)
	fmt.Fprintf(&b, "\nThe fork's median is %d ms more than the plain one's (target: at most %d) and %d ms in all (target: at most %d).\n",
		more.Milliseconds(), beyond.Milliseconds(), median(fork).Milliseconds(), inAll.Milliseconds())
	return b.String()
}

func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	n := len(s)
	if n == 0 {
		return 0
	}
	return (s[(n-1)/2] + s[n/2]) / 2
}

// machine describes where it was measured.
func machine() string {
	cpu := "unknown processor"
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	memory := ""
	if raw, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kib int64
		if _, err := fmt.Sscanf(string(raw), "MemTotal: %d kB", &kib); err == nil {
			memory = fmt.Sprintf(", %d GiB", (kib+1<<19)>>20)
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("Measured on %s: %d cores (%s)%s, Linux %s, %s; single-node Kubernetes of test/cluster, images cached, cluster, clients and\nworkloads on the same cores.",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), cpu, memory, strings.TrimSpace(string(kernel)), runtime.Version())
}

// replaceResults puts text between the two marks that a part has in a file.
func replaceResults(path, part, text string) error {
	begin, end := "<!-- "+part+": written by make bench -->", "<!-- end of "+part+" -->"
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(raw), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s: the marks %q and %q are not both there", path, begin, end)
	}
	return os.WriteFile(path, []byte(before+begin+"\n\n"+strings.TrimSpace(text)+"\n"+end+after), 0o644) //nolint:gosec // a file of the repository
}
