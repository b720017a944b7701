#!/bin/sh
# Runs in the guest (busybox): what the inventory reads, a line each. T path text | L path target | B path bytes-in-hex
t() { for f; do [ -f "$f" ] || continue; x=; { IFS= read -r x < "$f"; } 2>/dev/null || { [ -r "$f" ] && [ -z "$x" ]; } ; echo "T $f $x"; done; }
l() { for f; do [ -L "$f" ] && echo "L $f $(readlink $f)"; done; }
m() { for f; do [ -f "$f" ] && echo "B $f $(hexdump -v -e '1/1 "%02x"' $f 2>/dev/null)"; done; }
t /proc/sys/kernel/osrelease /proc/sys/kernel/arch /proc/cmdline /proc/sys/kernel/modules_disabled /sys/kernel/security/lockdown
for b in pci virtio vdpa usb platform pnp; do t /sys/bus/$b/drivers_autoprobe; l /sys/bus/$b/devices/*; done
for d in /sys/bus/pci/devices/*; do r=$(readlink -f $d)
 t $r/vendor $r/device $r/class $r/revision $r/subsystem_vendor $r/subsystem_device $r/modalias $r/current_link_speed $r/current_link_width $r/max_link_speed $r/sriov_totalvfs $r/sriov_numvfs $r/authenticated $r/tsm/* $r/enable $r/doe_features/*
 l $r/driver $r/physfn $r/virtfn* $r/iommu_group
 m $r/config
done
for d in /sys/bus/virtio/devices/*; do r=$(readlink -f $d); t $r/device $r/vendor $r/status $r/features $r/modalias; l $r/driver; m $r/mount_tag; done
for d in /sys/bus/usb/devices/*; do r=$(readlink -f $d); t $r/idVendor $r/idProduct $r/bcdDevice $r/bDeviceClass $r/bDeviceSubClass $r/bDeviceProtocol $r/serial $r/authorized $r/bInterfaceClass $r/modalias $r/product $r/manufacturer; l $r/driver; done
for d in /sys/bus/platform/devices/i8042 /sys/bus/platform/devices/serial8250 /sys/bus/platform/devices/QEMU* /sys/bus/platform/devices/LNRO* /sys/bus/platform/devices/MSFT* /sys/bus/platform/devices/virtio-mmio*; do [ -e $d ] || continue; r=$(readlink -f $d); t $r/modalias; l $r/driver; done
for d in /sys/bus/pnp/devices/*; do r=$(readlink -f $d); m $r/id; l $r/driver; done
for c in block net nvme virtio-ports input drm sound scsi_host tpm; do l /sys/class/$c/*; done
l /sys/class/tty/ttyS* /sys/class/tty/hvc*; t /sys/class/tty/ttyS*/type
t /sys/class/nvme/*/serial /sys/class/block/*/serial
t /sys/kernel/iommu_groups/*/type
for p in /sys/devices/system/cpu/sev/vmpl /sys/firmware/uv/prot_virt_guest; do t $p; done
grep -m1 '^flags' /proc/cpuinfo | cut -c1-2000 | sed 's/^/T \/proc\/cpuinfo /'
