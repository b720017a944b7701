# What a tenant adds to a policy in Rego: it can only take away. See docs/opa.md.
package airlock

# Nothing to add unless a rule below says so.
default narrow := {}

narrow := {"deny": true, "reason": sprintf("vendor %d is on the list of withdrawn vendors", [input.device.vendor])} if {
	input.device.vendor in data.airlock.withdrawn
}

else := {"deny": true, "reason": sprintf("revision %d of this card is older than %d", [input.device.revision, least])} if {
	least := data.airlock.least_revision[input.device.type]
	input.device.revision < least
}

else := {"level": "limited", "reason": "no direct memory access on a machine that is not confidential"} if {
	input.decision.level != "disconnected"
	input.kernel.confidential == null
}
