// What can happen? The stable ids of the events in the history and the log; docs/events.md lists them for those who
// watch for them. An id is never reused or renamed.

package main

const (
	eventFounded      = "cluster-founded"
	eventForced       = "incarnation-forced"
	eventConfig       = "config-changed"
	eventJoined       = "node-joined"
	eventLost         = "node-lost"
	eventBack         = "node-back"
	eventLeft         = "node-left"
	eventMember       = "member-changed"
	eventPlaced       = "group-placed"
	eventStarted      = "group-started"
	eventRevoked      = "group-revoked"
	eventStopped      = "group-stopped"
	eventFreed        = "group-freed"
	eventBlocked      = "group-blocked"
	eventRemoved      = "group-removed"
	eventFailure      = "resource-failed"
	eventExpired      = "failcount-expired"
	eventRetry        = "resource-retry"
	eventUnfit        = "node-unfit"
	eventFit          = "node-fit"
	eventEnforce      = "enforcement-changed"
	eventPinned       = "group-pinned"
	eventUnpinned     = "group-unpinned"
	eventStandby      = "node-standby"
	eventOnline       = "node-online"
	eventMaintenance  = "maintenance-on"
	eventMaintained   = "maintenance-off"
	eventCleaned      = "failures-cleaned"
	eventConfirmDead  = "node-confirmed-dead"
	eventFeature      = "feature-raised"
	eventLeaseShorter = "lease-shortened"
)
