// Package server assembles the webhook's process: admission, certificates, the route stream and the controllers. It is
// the only package that sets up controller-runtime.
package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/certs"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/inject"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Options are the settings of a replica.
type Options struct {
	Version   string // of the program
	Namespace string // its own
	PodIP     string // its own; the other replicas send routers there
	Memory    int64  // the container's limit, in bytes; 0: unknown

	Service          string // in front of the replicas
	Configuration    string // name of the MutatingWebhookConfiguration
	Lease            string
	AdmissionPort    int
	RoutesPort       int
	MetricsAddress   string
	HealthAddress    string
	ShutdownDelay    time.Duration
	LogLevel         string
	ControlAddresses string // HOST:PORT,...; empty: the Service

	Certificates    string // CertificatesSelf or CertificatesMounted
	CertificatesDir string
	CASecret        string
	CAValidity      time.Duration
	LeafValidity    time.Duration

	RouterImage      string
	RouterPullPolicy string
	RouterRequests   map[string]string
	RouterLimits     map[string]string
	RouterFirstWait  time.Duration
	RouterStaleAfter time.Duration
	MaxSandboxes     int           // of a namespace; 0: no limit
	Guarded          bool          // policies require the verb fork of who creates a sandbox
	WarnBefore       time.Duration // an expiry
	KeyHeader        string
	KeyMember        string

	// FollowKinds are the kinds of baselines, beside Kubernetes' own, that forks may follow, from KIND.VERSION.GROUP to
	// the resource.
	FollowKinds map[string]string
}

// Values of Options.Certificates.
const (
	CertificatesSelf    = "self"    // an authority of its own in a Secret
	CertificatesMounted = "mounted" // files that another program renews
)

// AddFlags binds the options to flags and sets their defaults.
func (o *Options) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&o.Service, "service", "sandbox-webhook", "Service in front of the webhook's replicas, in their namespace.")
	f.StringVar(&o.Configuration, "webhook-configuration", "kubectl-sandbox", "MutatingWebhookConfiguration whose caBundles are kept current.")
	f.StringVar(&o.Lease, "lease", "sandbox-webhook", "Lease whose holder serves routes.")
	f.IntVar(&o.AdmissionPort, "admission-port", 9443, "Port of admission, TLS.")
	f.IntVar(&o.RoutesPort, "routes-port", 9444, "Port of the route stream, TLS.")
	f.StringVar(&o.MetricsAddress, "metrics-address", ":8080", `Address of /metrics, plain HTTP; "0" for none.`)
	f.StringVar(&o.HealthAddress, "health-address", ":8081", "Address of /healthz and /readyz, plain HTTP.")
	f.DurationVar(&o.ShutdownDelay, "shutdown-delay", 5*time.Second, "How long to go on serving after SIGTERM, unready, until nobody sends requests here any more.")
	f.StringVar(&o.LogLevel, "log-level", "info", "One of debug, info, warn, error.")
	f.StringVar(&o.ControlAddresses, "control-addresses", "", "HOST:PORT,... that injected routers dial in turn; empty: the Service's address, then its name.")

	f.StringVar(&o.Certificates, "certificates", CertificatesSelf, "Where certificates come from: self (an own authority in a Secret) or mounted (files in --certificates-dir).")
	f.StringVar(&o.CertificatesDir, "certificates-dir", "/etc/sandbox-webhook/tls", "Directory of tls.crt, tls.key and ca.crt, with --certificates=mounted.")
	f.StringVar(&o.CASecret, "ca-secret", "sandbox-webhook-ca", "Secret of the own authority, made when it is missing, with --certificates=self.")
	f.DurationVar(&o.CAValidity, "ca-validity", 365*24*time.Hour, "How long an own authority is valid; the next one is made at two thirds of it.")
	f.DurationVar(&o.LeafValidity, "leaf-validity", 24*time.Hour, "How long a serving certificate is valid; it is renewed at two thirds of it.")

	f.StringVar(&o.RouterImage, "router-image", "", "Image of the injected router. Required.")
	f.StringVar(&o.RouterPullPolicy, "router-image-pull-policy", string(corev1.PullIfNotPresent), "Pull policy of the router's image.")
	f.StringToStringVar(&o.RouterRequests, "router-requests", map[string]string{"cpu": "10m", "memory": "32Mi"}, "The router's resource requests.")
	f.StringToStringVar(&o.RouterLimits, "router-limits", map[string]string{"cpu": "200m", "memory": "128Mi"}, "The router's resource limits, each only in pods whose containers all have one.")
	f.DurationVar(&o.RouterFirstWait, "router-first-wait", 2*time.Second, "How long a router holds back its app's start for the first table of routes.")
	f.DurationVar(&o.RouterStaleAfter, "router-stale-after", 15*time.Minute, "Age from which a router does not use its table of routes any more.")
	f.IntVar(&o.MaxSandboxes, "max-sandboxes", 0, "The most sandboxes that a namespace may have; 0 for no limit.")
	f.BoolVar(&o.Guarded, "guarded", true, "Hold keys and places only for sandboxes of those who may fork, as the chart's policies let nobody else make any.")
	f.DurationVar(&o.WarnBefore, "warn-before", 10*time.Minute, "How long before its expiry a sandbox gets an Event that says so; at most a quarter of its life.")
	f.StringToStringVar(&o.FollowKinds, "follow-kinds", nil, "Kinds of baselines, beside Kubernetes' own, that forks may follow, as KIND.VERSION.GROUP=RESOURCE,...; the ServiceAccount must be able to read them.")
	f.StringVar(&o.KeyHeader, "key-header", sandbox.DefaultHeader, "Request header that carries a routing key.")
	f.StringVar(&o.KeyMember, "key-member", sandbox.DefaultMember, "Member of baggage and tracestate that carries a routing key.")
}

// Complete reads the settings that come from the environment.
func (o *Options) Complete(version string, getenv func(string) string) {
	o.Version = version
	o.Namespace, o.PodIP = getenv("POD_NAMESPACE"), getenv("POD_IP")
	if o.ControlAddresses != "" {
		return
	}
	// The kubelet sets variables for every Service of the namespace that is older than the pod (enableServiceLinks). The
	// address comes first: it works in pods that cannot resolve cluster names.
	var addresses []string
	variable := strings.ToUpper(strings.ReplaceAll(o.Service, "-", "_"))
	port := getenv(variable + "_SERVICE_PORT_ROUTES")
	if port == "" {
		port = strconv.Itoa(o.RoutesPort)
	}
	if host := getenv(variable + "_SERVICE_HOST"); host != "" {
		addresses = append(addresses, net.JoinHostPort(host, port))
	}
	addresses = append(addresses, net.JoinHostPort(o.serverName(), port))
	o.ControlAddresses = strings.Join(addresses, ",")
}

// Validate returns all errors of the options.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(o.Namespace != "", "environment variable POD_NAMESPACE is missing: set it from metadata.namespace (downward API)")
	check(net.ParseIP(o.PodIP) != nil, "environment variable POD_IP %q is no address: set it from status.podIP (downward API)", o.PodIP)
	for flag, value := range map[string]string{"service": o.Service, "webhook-configuration": o.Configuration, "lease": o.Lease, "ca-secret": o.CASecret} {
		check(len(validation.IsDNS1123Subdomain(value)) == 0, "--%s: %q is no object's name", flag, value)
	}
	for flag, port := range map[string]int{"admission-port": o.AdmissionPort, "routes-port": o.RoutesPort} {
		check(port > 0 && port <= 65535, "--%s: %d is no port number", flag, port)
	}
	check(o.RouterImage != "", "--router-image is required")
	_, err := o.Level()
	check(err == nil, "%w", err)
	check(o.Certificates == CertificatesSelf || o.Certificates == CertificatesMounted,
		"--certificates: %q is neither %s nor %s", o.Certificates, CertificatesSelf, CertificatesMounted)
	check(o.CAValidity >= 10*time.Second, "--ca-validity: must be at least 10s, is %s", o.CAValidity)
	check(o.LeafValidity >= 3*time.Second, "--leaf-validity: must be at least 3s, is %s", o.LeafValidity)
	check(o.ShutdownDelay >= 0, "--shutdown-delay: must not be negative, is %s", o.ShutdownDelay)
	check(o.RouterFirstWait >= 0, "--router-first-wait: must not be negative, is %s", o.RouterFirstWait)
	check(o.RouterStaleAfter > 0, "--router-stale-after: must be positive, is %s", o.RouterStaleAfter)
	check(o.MaxSandboxes >= 0, "--max-sandboxes: must not be negative, is %d", o.MaxSandboxes)
	check(o.WarnBefore >= 0, "--warn-before: must not be negative, is %s", o.WarnBefore)
	for flag, value := range map[string]string{"key-header": o.KeyHeader, "key-member": o.KeyMember} {
		check(validToken(value), "--%s: %q must consist of lowercase letters, digits and '-'", flag, value)
	}
	switch corev1.PullPolicy(o.RouterPullPolicy) {
	case corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever:
	default:
		check(false, "--router-image-pull-policy: %q is none of Always, IfNotPresent, Never", o.RouterPullPolicy)
	}
	for arg, resource := range o.FollowKinds {
		kind, _ := schema.ParseKindArg(arg)
		check(kind != nil && resource != "", "--follow-kinds: %s=%s is not KIND.VERSION.GROUP=RESOURCE", arg, resource)
	}
	for address := range strings.SplitSeq(o.ControlAddresses, ",") {
		_, _, err := net.SplitHostPort(address)
		check(err == nil, "--control-addresses: %q is not HOST:PORT", address)
	}
	requests, err := quantities("router-requests", o.RouterRequests)
	check(err == nil, "%w", err)
	limits, err := quantities("router-limits", o.RouterLimits)
	check(err == nil, "%w", err)
	for name, limit := range limits {
		request, ok := requests[name]
		check(ok || requests == nil, "--router-limits: %s has no request in --router-requests", name)
		check(!ok || request.Cmp(limit) <= 0, "--router-limits: %s is less than the request", name)
	}
	return errors.Join(errs...)
}

// Level returns the log level. At debug, logr's V(1) is logged.
func (o *Options) Level() (slog.Level, error) {
	levels := map[string]slog.Level{"debug": slog.LevelInfo - 1, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[o.LogLevel]
	if !ok {
		return 0, fmt.Errorf("--log-level: %q is none of debug, info, warn, error", o.LogLevel)
	}
	return level, nil
}

// validToken reports whether s needs no escaping in a header, baggage and tracestate.
func validToken(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func quantities(flag string, values map[string]string) (corev1.ResourceList, error) {
	list := corev1.ResourceList{}
	for name, value := range values {
		q, err := resource.ParseQuantity(value)
		if err != nil || q.Sign() < 0 {
			return nil, fmt.Errorf("--%s: %s=%s is no quantity", flag, name, value)
		}
		switch name := corev1.ResourceName(name); name {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			list[name] = q
		default:
			return nil, fmt.Errorf("--%s: %q is none of cpu, memory, ephemeral-storage", flag, name)
		}
	}
	return list, nil
}

func (o *Options) service() types.NamespacedName {
	return types.NamespacedName{Namespace: o.Namespace, Name: o.Service}
}

func (o *Options) serverName() string { return certs.ServerName(o.service()) }

// injection returns the configuration of injected routers that trust ca. The options must be valid.
func (o *Options) injection(ca []byte) inject.Config {
	requests, _ := quantities("router-requests", o.RouterRequests)
	limits, _ := quantities("router-limits", o.RouterLimits)
	return inject.Config{
		Version: o.Version, Image: o.RouterImage, PullPolicy: corev1.PullPolicy(o.RouterPullPolicy), Requests: requests, Limits: limits,
		Control: o.ControlAddresses, ControlName: o.serverName(), CA: string(ca),
		Header: o.KeyHeader, Member: o.KeyMember, FirstWait: o.RouterFirstWait, StaleAfter: o.RouterStaleAfter,
	}
}
