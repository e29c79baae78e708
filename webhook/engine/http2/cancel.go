package http2

import "golang.org/x/net/http2"

// pendingResets counts the cancelled requests of which a backend may not know yet that they are, and on which it may work. A
// client may cancel as many requests as it likes, as calls that run into their deadlines do; but of those that a
// backend may be working on there are never more than of those that are open: else opening and resetting streams would
// have it do any amount of work (CVE-2023-44487). Further requests wait, and cost nothing when they are cancelled
// meanwhile.
//
// A backend has heard of a reset when it answers a request that was opened later, or acknowledges SETTINGS that were
// sent later: it reads in order. A PING would say the same, and servers of gRPC end connections on which many come.
type pendingResets struct {
	older, newer    int    // requests that were cancelled before mark, and since
	mark            uint32 // the next stream's ID when newer began to be counted
	settingsAwaited int    // acknowledgements of SETTINGS until the one that was asked for to find out; 0: none was
}

func (u *pendingResets) count() int { return u.older + u.newer }

// answered notes an answer on a stream. It returns whether that says that resets were heard. Where the backend was
// asked, its answer to that is waited for.
func (u *pendingResets) answered(id, next uint32) bool {
	return u.settingsAwaited == 0 && u.count() > 0 && id >= u.mark && u.confirm(next)
}

// heard notes that what was cancelled before mark is known, and goes on with what was cancelled since.
func (u *pendingResets) confirm(next uint32) bool {
	before := u.count()
	u.older, u.newer, u.mark = u.newer, 0, next
	return u.count() < before
}

// acknowledged notes an acknowledgement of SETTINGS. It returns whether that says that resets were heard.
func (u *pendingResets) acknowledged(next uint32) bool {
	if u.settingsAwaited == 0 {
		return false
	}
	if u.settingsAwaited--; u.settingsAwaited > 0 {
		return false
	}
	return u.confirm(next)
}

// cancelStream resets a stream at the backend that may be working on it.
func (up *upstream) cancelStream(id uint32, code http2.ErrCode) {
	up.rst(id, code)
	up.pendingResets.newer++
	up.mayCancel()
}

// mayCancel says whether so few cancelled requests are unheard of that another may be opened, and so be cancelled.
// Where they have become many, it asks the backend.
func (up *upstream) mayCancel() bool {
	limit := int(min(up.maxStreams, up.r.maxStreams))
	u := &up.pendingResets
	if u.count() >= (limit+1)/2 && u.count() > 0 && u.settingsAwaited == 0 && up.state == sending {
		u.older, u.newer, u.mark = u.count(), 0, up.nextID
		up.writeWindowSetting()
		u.settingsAwaited = up.settingsSent
	}
	return u.count() < max(limit, 1)
}
