package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/probe/contract"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/probe/request"
)

// connections is the number of connections that a contract check needs: it waits for each answer.
const connections = 4

func newContract() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "contract",
		Short: "Compare what variants promise and answer with what the baseline does",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newOpenAPI(), newGRPC())
	return cmd
}

func newOpenAPI() *cobra.Command {
	var who arms
	var target, document, list, format string
	var http2 bool
	o := contract.OpenAPI{Version: version}
	cmd := &cobra.Command{
		Use:   "openapi --url=URL --document=FILE --variant=NAME=KEY...",
		Short: "Hold answers to an OpenAPI 3 document and to the baseline's answers",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := logger(cmd)
			variants, err := who.contractArms()
			if err != nil {
				return err
			}
			o.Variants = variants
			if err := o.Validate(); err != nil {
				return err
			}
			base, err := request.Base(target)
			if err != nil {
				return fmt.Errorf("--url: %w", err)
			}
			o.Client = request.NewClient(base, who.carriers, connections, http2)
			if list != "" {
				read, err := readList(list, request.Format(format), base.Hostname())
				if err != nil {
					return fmt.Errorf("--requests: %w", err)
				}
				o.Requests = read.Requests
			}
			data, err := readDocument(cmd.Context(), document, o)
			if err != nil {
				return err
			}
			if o.Document, err = contract.ParseDocument(cmd.Context(), data); err != nil {
				return fmt.Errorf("reading the OpenAPI document: %w", err)
			}
			log.Info("contract", "url", base.String(), "variants", len(variants), "requests", len(o.Requests))
			c, err := o.Run(cmd.Context())
			if err != nil {
				return err
			}
			return result.Write(cmd.OutOrStdout(), c)
		},
	}
	f := cmd.Flags()
	who.addFlags(f)
	f.StringVar(&target, "url", "", "http://HOST[:PORT] that all requests go to: the Service by which traffic enters.")
	f.StringVar(&document, "document", "", "File with the OpenAPI 3 document, in JSON or YAML. Empty: what the baseline serves at --served-document.")
	f.StringVar(&o.Served, "served-document", "", "Path at which the service has its own document. Each variant's is compared with the baseline's.")
	f.StringVar(&list, "requests", "", "File with the requests to send. Empty: what the document has examples of.")
	f.StringVar(&format, "format", string(request.FormatAuto), "How that file is written: auto, vegeta, vegeta-json, har or k6.")
	f.StringSliceVar(&o.Methods, "methods", []string{http.MethodGet, http.MethodHead}, "Methods to send of the document's. Others may change what they ask.")
	f.IntVar(&o.Samples, "samples", 3, "How often to send each request to a variant, and twice as often to the baseline.")
	f.Float64Var(&o.Rate, "rate", 50, "Requests a second, at most.")
	f.DurationVar(&o.Timeout, "timeout", 10*time.Second, "How long a request may take.")
	f.BoolVar(&http2, "http2", false, "Speak HTTP/2, without TLS by prior knowledge, instead of HTTP/1.1.")
	_ = cmd.MarkFlagRequired("url") // it exists
	cmd.MarkFlagsOneRequired("document", "served-document")
	return cmd
}

// readDocument reads the document from its file, or from the baseline.
func readDocument(ctx context.Context, file string, o contract.OpenAPI) ([]byte, error) {
	if file != "" {
		data, err := readFile(file, contract.MaxDocument)
		if err != nil {
			return nil, fmt.Errorf("--document: %w", err)
		}
		return data, nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	a, err := o.Client.Send(ctx, request.Request{Method: http.MethodGet, Target: o.Served, Header: http.Header{}}, "", contract.MaxDocument, true)
	switch {
	case err != nil:
		return nil, fmt.Errorf("--served-document=%s: %w", o.Served, err)
	case a.Status != http.StatusOK:
		return nil, fmt.Errorf("--served-document=%s: the baseline answers with status %d", o.Served, a.Status)
	}
	return a.Body, nil
}

func newGRPC() *cobra.Command {
	var who arms
	g := contract.GRPC{Version: version}
	cmd := &cobra.Command{
		Use:   "grpc --target=HOST:PORT --variant=NAME=KEY...",
		Short: "Compare services, methods and messages with the baseline's, by server reflection",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			variants, err := who.contractArms()
			if err != nil {
				return err
			}
			if _, port, err := net.SplitHostPort(g.Target); err != nil || port == "" {
				return errors.Join(fmt.Errorf("--target=%s: must be HOST:PORT", g.Target), err)
			}
			g.Variants, g.Carriers = variants, who.carriers
			if err := g.Validate(); err != nil {
				return err
			}
			logger(cmd).Info("contract", "target", g.Target, "variants", len(variants))
			c, err := g.Run(cmd.Context())
			if err != nil {
				return err
			}
			return result.Write(cmd.OutOrStdout(), c)
		},
	}
	f := cmd.Flags()
	who.addFlags(f)
	f.StringVar(&g.Target, "target", "", "HOST:PORT of the Service by which traffic enters.")
	f.DurationVar(&g.Timeout, "timeout", 30*time.Second, "How long to ask each arm.")
	_ = cmd.MarkFlagRequired("target") // it exists
	return cmd
}

func (a *arms) contractArms() ([]contract.Arm, error) {
	variants, err := a.parse()
	if err != nil {
		return nil, err
	}
	all := make([]contract.Arm, 0, len(variants))
	for _, v := range variants {
		all = append(all, contract.Arm{Name: v.name, Key: v.key})
	}
	return all, nil
}
