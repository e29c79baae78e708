package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/stats"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/probe/load"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/probe/request"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func newLoad() *cobra.Command {
	var who arms
	var target, list, format, thresholds string
	var http2 bool
	o := load.Options{Version: version}
	cmd := &cobra.Command{
		Use:   "load --url=URL --variant=NAME=KEY...",
		Short: "Measure latencies and errors of variants and baseline, in turns and at a given rate",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := logger(cmd)
			variants, err := who.parse()
			if err != nil {
				return err
			}
			for _, v := range variants {
				if v.key == o.BaselineKey {
					return fmt.Errorf("--baseline-key=%s: is the key of variant %s", v.key, v.name)
				}
				o.Variants = append(o.Variants, load.Arm{Name: v.name, Key: v.key})
			}
			if o.BaselineKey != "" {
				if err := sandbox.ValidateKey(o.BaselineKey); err != nil {
					return fmt.Errorf("--baseline-key=%s: %w", o.BaselineKey, err)
				}
			}
			if thresholds != "" {
				if o.Budgets, err = stats.ParseBudgets(thresholds); err != nil {
					return fmt.Errorf("--thresholds: %w", err)
				}
			}
			base, err := request.Base(target)
			if err != nil {
				return fmt.Errorf("--url: %w", err)
			}
			read, err := readList(list, request.Format(format), base.Hostname())
			if err != nil {
				return fmt.Errorf("--requests: %w", err)
			}
			o.Requests = read.Requests
			o.List = result.List{Requests: len(read.Requests), Host: read.Host, LeftOut: read.LeftOut}
			if !cmd.Flags().Changed("seed") {
				o.Seed = rand.Uint64() //nolint:gosec // an order, no secret
			}
			o.Client = request.NewClient(base, who.carriers, load.Connections(len(variants)), http2)
			if err := o.Validate(); err != nil {
				return err
			}
			log.Info("load", "url", base.String(), "requests", len(read.Requests), "host", read.Host, "leftOut", result.FormatLeftOut("", read.LeftOut), "variants", len(variants),
				"rate", o.Rate, "seed", o.Seed)
			return load.Run(cmd.Context(), o, func(l result.Load) error { return result.Write(cmd.OutOrStdout(), l) })
		},
	}
	f := cmd.Flags()
	who.addFlags(f)
	f.StringVar(&target, "url", "", "http://HOST[:PORT] that all requests go to: the Service by which traffic enters.")
	f.StringVar(&list, "requests", "", "File with the requests, sent in order and again from the start. Empty: GET /.")
	f.StringVar(&format, "format", string(request.FormatAuto), "How that file is written: auto, vegeta, vegeta-json, har or k6.")
	f.StringVar(&thresholds, "thresholds", "", "Budgets that end the measurement early where they are plainly kept or missed, such as p95<=baseline+10%.")
	f.BoolVar(&http2, "http2", false, "Speak HTTP/2, without TLS by prior knowledge, instead of HTTP/1.1.")
	addScheduleFlags(f, &o)
	_ = cmd.MarkFlagRequired("url") // it exists
	return cmd
}

// addScheduleFlags adds the flags that say how many requests are sent, when, and for whom.
func addScheduleFlags(f *pflag.FlagSet, o *load.Options) {
	f.StringVar(&o.BaselineKey, "baseline-key", "", "Routing key of the baseline's requests, which nobody has forked anything for. Empty: they carry none.")
	f.Float64Var(&o.Rate, "rate", 50, "Requests a second, to all arms together.")
	f.DurationVar(&o.Duration, "duration", 160*time.Second, "How long to measure, at most.")
	f.DurationVar(&o.WarmUp, "warm-up", 5*time.Second, "How long to send requests before that, at least.")
	f.IntVar(&o.Turn, "turn", 1, "Requests to an arm in a row. 1 keeps noise off best; long turns show what an arm does to what all share.")
	f.DurationVar(&o.Round, "round", 2*time.Second, "How long a round is, in which all arms are sent as many requests: what is resampled.")
	f.DurationVar(&o.Timeout, "timeout", 10*time.Second, "How long a request may take, from the time at which it is to be sent.")
	f.Uint64Var(&o.Seed, "seed", 0, "Seed of the order of turns. The default is random.")
	f.DurationVar(&o.Every, "report-every", 15*time.Second, "How often to print what was measured so far. 0: at the end alone.")
}

// readList reads a list of requests, and bodies from the list's own folder.
func readList(path string, format request.Format, prefer string) (list request.List, err error) {
	if path == "" {
		return request.List{Requests: []request.Request{{Method: "GET", Target: "/"}}}, nil
	}
	data, err := readFile(path, request.MaxList)
	if err != nil {
		return request.List{}, err
	}
	folder, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return request.List{}, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	return request.Parse(data, format, prefer, func(name string) (io.ReadCloser, error) { return folder.Open(name) })
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return data, nil
}
