# Every way in which a policy can be wrong; one entry point each. Compiled into hostile.tar.gz for the tests.
package hostile

# Some 10^12 steps for a device with serial "slow", at once otherwise.
default slow := {}

slow := {"deny": true} if {
	input.device.serial == "slow"
	some a in numbers.range(1, 10000)
	some b in numbers.range(1, 10000)
	some c in numbers.range(1, 10000)
	a + b + c == 0
}

# A set that outgrows every memory limit.
default grow := {}

grow := {"reason": sprintf("%d", [count(all)])} if {
	all := {[a, b] | some a in numbers.range(1, 10000); some b in numbers.range(1, 10000)}
}

raise := {"level": "tcb", "reason": "trust me"}

number := 7

list := [{"deny": true}]

text := "deny"

nothing := null

yes := true

unknown_level := {"level": "friendly"}

number_level := {"level": 0}

word_deny := {"deny": "true"}

extra_key := {"dny": true}

escape := {"deny": true, "reason": "\u001b[2J\u001b]0;owned\u0007 \u202e"}

long_reason := {"deny": true, "reason": concat("", [s | some _ in numbers.range(1, 5000); s := "xxxxxxxxxx"])}

# More than is carried across.
huge_reason := {"deny": true, "reason": concat("", [s | some _ in numbers.range(1, 20000); s := "xxxxxxxxxx"])}

# Without a default, this is undefined for every device but one.
undefined := {"deny": false} if input.device.serial == "defined"

# Needs a clock, which a policy does not get.
clock := {"reason": sprintf("%d", [time.now_ns()])}

# Two rules that disagree: a conflict when both hold.
conflict := {"deny": true} if input.device.bus == "pci"

conflict := {"deny": false} if input.device.type == "network"

deny := {"deny": true}

printing := {} if {
	print("{\"not\":\"ours\"}")
	true
}

echo := {"reason": json.marshal(input)}
