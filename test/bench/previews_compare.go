package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// A burst is what one measurement of a way gave: the median latency of its requests, and the CPU time for each.
type burst struct{ latency, cpu time.Duration }

// burst sends requests over some connections at once.
func (w *way) burst(ctx context.Context, token string, connections int) (burst, error) {
	clients := make([]*client, connections)
	for i := range clients {
		c, err := w.dial(ctx, token)
		if err != nil {
			return burst{}, fmt.Errorf("%s: %w", w.name, err)
		}
		defer func() { _ = c.conn.Close() }()
		if _, err := c.ask(); err != nil { // what a connection costs is not measured
			return burst{}, fmt.Errorf("%s: %w", w.name, err)
		}
		clients[i] = c
	}
	before, err := w.cpu()
	if err != nil {
		return burst{}, err
	}
	each := perBurst / connections
	all := make([][]time.Duration, connections)
	var group errgroup.Group
	for i, c := range clients {
		group.Go(func() error {
			for range each {
				took, err := c.ask()
				if err != nil {
					return fmt.Errorf("%s: %w", w.name, err)
				}
				all[i] = append(all[i], took)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return burst{}, err
	}
	after, err := w.cpu()
	return burst{median(slices.Concat(all...)), (after - before) / time.Duration(each*connections)}, err
}

// compare measures the ways, in turn, with one connection and with many, and writes what came of it as Markdown.
func (b *bench) compare(ctx context.Context, ways []*way, token string, rounds int) (string, error) {
	var text strings.Builder
	for _, connections := range []int{1, 16} {
		bursts := make([][]burst, len(ways))
		for round := range rounds + 1 {
			for i, w := range ways {
				measured, err := w.burst(ctx, token, connections)
				if round == 0 && err != nil { // it is starting
					measured, err = w.retry(ctx, token, connections)
				}
				if err != nil {
					return "", err
				}
				if round > 0 { // the first warms up
					bursts[i] = append(bursts[i], measured)
				}
			}
			fmt.Fprintf(os.Stderr, "%d connections: round %d of %d\n", connections, round, rounds)
		}
		fmt.Fprintf(&text, "\n%s\n\n", map[int]string{1: "One request after the other:", 16: "16 connections at once, on the same two cores as all else:"}[connections])
		fmt.Fprint(&text, "| way in | latency, µs | added, µs | added, as a ratio | CPU, µs a request | CPU, as a ratio |\n|---|---|---|---|---|---|\n")
		for i, w := range ways {
			latency := spread(bursts[i], func(k int) float64 { return us(bursts[i][k].latency) })
			if i == 0 {
				fmt.Fprintf(&text, "| %s | %s | | | | |\n", w.name, latency.micro())
				continue
			}
			peer := i - (i+1)%2 // nginx on the same way
			added := func(i, k int) float64 { return us(bursts[i][k].latency - bursts[0][k].latency) }
			row := []string{
				latency.micro(), spread(bursts[i], func(k int) float64 { return added(i, k) }).micro(), "1",
				spread(bursts[i], func(k int) float64 { return us(bursts[i][k].cpu) }).micro(), "1",
			}
			if peer != i {
				row[2] = spread(bursts[i], func(k int) float64 { return added(i, k) / added(peer, k) }).ratio()
				row[4] = spread(bursts[i], func(k int) float64 { return us(bursts[i][k].cpu) / us(bursts[peer][k].cpu) }).ratio()
			}
			fmt.Fprintf(&text, "| %s | %s |\n", w.name, strings.Join(row, " | "))
		}
	}
	return strings.TrimSpace(text.String()), nil
}

// retry measures a way once it serves.
func (w *way) retry(ctx context.Context, token string, connections int) (burst, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		measured, err := w.burst(ctx, token, connections)
		if err == nil {
			return measured, nil
		}
		select {
		case <-ctx.Done():
			return burst{}, errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// quantiles are the median of what was measured, and where the middle eight tenths of it lie.
type quantiles struct{ low, median, high float64 }

func spread(bursts []burst, of func(k int) float64) quantiles {
	var all []float64
	for k := range bursts {
		all = append(all, of(k))
	}
	slices.Sort(all)
	at := func(q float64) float64 { return all[int(q*float64(len(all)-1)+0.5)] }
	return quantiles{at(0.1), at(0.5), at(0.9)}
}

func (q quantiles) micro() string { return fmt.Sprintf("%.0f (%.0f to %.0f)", q.median, q.low, q.high) }
func (q quantiles) ratio() string {
	return fmt.Sprintf("**%.2f** (%.2f to %.2f)", q.median, q.low, q.high)
}
