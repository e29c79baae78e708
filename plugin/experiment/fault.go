package experiment

import "github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"

// A Fault says who can fix a reason; empty if unknown.
type Fault string

// Faults.
const (
	FaultVariant Fault = "variant" // the change that is tested
	FaultTest    Fault = "test"    // the suite: its Jobs, their images, addresses and times
	FaultCluster Fault = "cluster" // nodes, quotas, policies, registries, other controllers
	FaultProduct Fault = "product" // kubectl-sandbox: its webhook and its routers
)

// faultOf returns the fault of a code, if the code alone determines it.
func faultOf(c Code) Fault {
	switch c {
	case TestFailed, TimedOut, BudgetMissed, ContractBroken, Bystander, Refused, ForkNotReady:
		return FaultVariant
	case NotFinished, NothingSent, OtherKey, ForkUntested, TooFew, NothingCompared:
		return FaultTest
	case RouterLost, DigestMismatch, TooNoisy:
		return FaultCluster
	case NotInjected, NotReported, NotCounted, RouterMissing:
		return FaultProduct
	}
	return ""
}

// faultOfPod translates the fault of a pod to that of a test: the app's fault is the test's here.
func faultOfPod(f health.Fault) Fault {
	switch f {
	case health.FaultApp:
		return FaultTest
	case health.FaultCluster:
		return FaultCluster
	case health.FaultProduct:
		return FaultProduct
	}
	return ""
}

// because returns a reason with the fault that its code determines.
func because(c Code, message string) Reason {
	return Reason{Code: c, Message: message, Fault: faultOf(c)}
}

// blamed returns a reason with an explicit fault.
func blamed(f Fault, c Code, message string) *Reason {
	return &Reason{Code: c, Message: message, Fault: f}
}
