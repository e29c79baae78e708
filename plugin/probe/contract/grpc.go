package contract

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jhump/protoreflect/v2/grpcreflect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/probe/request"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// Bounds of what a server reports about itself.
const (
	maxServices   = 500
	maxReflection = 8 << 20 // bytes of a message
)

// GRPC configures a check of gRPC definitions.
type GRPC struct {
	Version  string
	Target   string // HOST:PORT
	Carriers route.Carriers
	Variants []Arm
	Timeout  time.Duration // of all that one arm is asked
}

// Validate returns what is wrong with g, naming flags.
func (g GRPC) Validate() error {
	switch {
	case len(g.Variants)+1 > result.MaxArms:
		return fmt.Errorf("--variant: at most %d", result.MaxArms-1)
	case g.Timeout <= 0 || g.Timeout > 10*time.Minute:
		return errors.New("--timeout: must be more than 0 and at most 10m")
	}
	return nil
}

// Run reads the definitions of every arm and compares them with the baseline's. It fails only if ctx ends.
func (g GRPC) Run(ctx context.Context) (result.Contract, error) {
	list, keys := arms(g.Variants)
	c := result.Contract{
		Header:   result.Header{APIVersion: result.APIVersion, Kind: result.KindContract, Probe: g.Version, Start: time.Now().UTC(), Arms: list},
		Protocol: result.ProtocolGRPC,
	}
	var found findings
	var base services
	seen := make([]result.Seen, len(list))
	for arm, key := range keys {
		defined, servedBy, err := g.ask(ctx, key)
		if ctx.Err() != nil {
			c.Incomplete = fmt.Sprintf("it was ended after %d of %d arms", arm, len(keys))
			break
		}
		seen[arm].ServedBy = servedBy
		if err != nil {
			reason := result.ReasonDocumentUnusable
			if errors.As(err, new(refusedError)) {
				reason = result.ReasonNotServed
			}
			found.add(result.Finding{Arm: list[arm].Name, Reason: reason, Message: err.Error()})
			if arm == 0 {
				break
			}
			continue
		}
		if arm == 0 {
			base = defined
			continue
		}
		for _, f := range compareServices(base, defined) {
			f.Arm = list[arm].Name
			found.add(f)
		}
	}
	for _, s := range base {
		for i := range s.Methods().Len() {
			c.Operations = append(c.Operations, result.Operation{Name: methodName(s.Methods().Get(i)), Seen: seen})
		}
	}
	slices.SortFunc(c.Operations, func(a, b result.Operation) int { return strings.Compare(a.Name, b.Name) })
	found.blame()
	c.Findings, c.Dropped, c.End = found.sorted(list), found.dropped, time.Now().UTC()
	return c, nil
}

// refusedError means that a router answered in place of a fork.
type refusedError string

func (e refusedError) Error() string { return "a router answered: " + string(e) }

// ask reads the definitions of one arm by server reflection, in either version.
func (g GRPC) ask(ctx context.Context, key string) (all services, servedBy map[string]int, err error) {
	defer recovered(&err)
	ctx, cancel := context.WithTimeout(ctx, g.Timeout)
	defer cancel()
	carried := http.Header{}
	request.Stamp(carried, g.Carriers, key)
	for name, values := range carried {
		ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(name), values[0])
	}
	said := &answered{}
	conn, err := grpc.NewClient("dns:///"+g.Target, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(), grpc.WithMaxHeaderListSize(64<<10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReflection), grpc.WaitForReady(true)), grpc.WithStreamInterceptor(said.intercept))
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is left in it
	reflection := grpcreflect.NewClientAuto(ctx, conn)
	defer reflection.Reset()
	all, err = read(reflection)
	servedBy, refused := said.result()
	if err != nil && refused != "" {
		err = refusedError(refused)
	}
	return all, servedBy, err
}

func read(reflection *grpcreflect.Client) (services, error) {
	names, err := reflection.ListServices()
	if err != nil {
		return nil, fmt.Errorf("server reflection: %w", err)
	}
	if len(names) > maxServices {
		return nil, fmt.Errorf("it has %d services, more than %d", len(names), maxServices)
	}
	all := services{}
	for _, name := range names {
		if strings.HasPrefix(string(name), "grpc.reflection.") {
			continue // how it is asked, and no part of what it does
		}
		file, err := reflection.FileContainingSymbol(name)
		if err != nil {
			return nil, fmt.Errorf("server reflection of %.200s: %w", name, err)
		}
		s := serviceOf(file, name)
		if s == nil {
			return nil, fmt.Errorf("server reflection of %.200s: its file does not define it", name)
		}
		all[name] = s
	}
	if len(all) == 0 {
		return nil, errors.New("server reflection names no service")
	}
	return all, nil
}

func serviceOf(file protoreflect.FileDescriptor, name protoreflect.FullName) protoreflect.ServiceDescriptor {
	s := file.Services().ByName(name.Name())
	if s == nil || s.FullName() != name {
		return nil
	}
	return s
}
