// Command record measures a real program: GET requests to one URL at a steady rate, whether or not earlier ones were answered,
// and writes what each took to a file that the simulations in plugin/experiment/stats read.
package main

import (
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

func main() {
	url := flag.String("url", "", "what to request, on this machine or in its cluster")
	rate := flag.Int("rate", 100, "requests a second")
	duration := flag.Duration("duration", 10*time.Minute, "for how long")
	out := flag.String("out", "", "file to write, *.gz")
	flag.Parse()
	if err := run(*url, *rate, *duration, *out); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func run(url string, rate int, duration time.Duration, out string) error {
	if url == "" || out == "" {
		return errors.New("give --url and --out")
	}
	target := vegeta.NewStaticTargeter(vegeta.Target{Method: "GET", URL: url})
	var results vegeta.Results
	for r := range vegeta.NewAttacker().Attack(target, vegeta.Rate{Freq: rate, Per: time.Second}, duration, "record") {
		r.Body, r.Headers = nil, nil
		results = append(results, *r)
	}
	slices.SortFunc(results, func(a, b vegeta.Result) int { return a.Timestamp.Compare(b.Timestamp) })
	return write(out, results)
}

// write writes one line a request, in the order of sending: its microseconds, and "!" after them if it failed.
func write(path string, results vegeta.Results) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	packed, err := gzip.NewWriterLevel(file, gzip.BestCompression)
	if err != nil {
		return err
	}
	failed := 0
	for _, r := range results {
		mark := ""
		if r.Error != "" {
			mark, failed = "!", failed+1
		}
		if _, err := fmt.Fprintf(packed, "%d%s\n", r.Latency.Microseconds(), mark); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "%s: %d requests, %d failed\n", path, len(results), failed)
	return packed.Close()
}
