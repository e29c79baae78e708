package experiment

import "github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"

// A Fault says who can fix a reason. Empty: that is not known.
type Fault string

// Faults.
const (
	FaultVariant Fault = "variant" // the change that is tested
	FaultTest    Fault = "test"    // the suite: its Jobs, their images, addresses and times
	FaultCluster Fault = "cluster" // nodes, quotas, policies, registries, other controllers
	FaultProduct Fault = "product" // kubectl-sandbox: its webhook and its routers
)

// faultOf is the fault of a code, where the code alone tells it.
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

// faultOfPod translates who can fix a pod of a test: what is the app's there is the test's here.
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

// because returns a reason with the fault that its code tells.
func because(c Code, message string) Reason {
	return Reason{Code: c, Message: message, Fault: faultOf(c)}
}

// blamed returns a reason whose fault the code alone does not tell.
func blamed(f Fault, c Code, message string) *Reason {
	return &Reason{Code: c, Message: message, Fault: f}
}
