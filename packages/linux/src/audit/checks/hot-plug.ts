/** Ways in which a device can appear later and get a driver at once. */
import { type Evidence, evidence } from '../evidence.ts';
import { type Check, found, notApplicable, passed, REFERENCES, unknown, verdictOf } from '../finding.ts';
import { fact, names } from '../reading.ts';

const GATED = ['pci', 'virtio', 'vdpa', 'usb'] as const;
const ACPIPHP = '/sys/module/acpiphp/parameters/disable';
const SLOTS = '/sys/bus/pci/slots';
const PCIEHP = '/sys/bus/pci_express/drivers/pciehp';
const USB = '/sys/bus/usb/devices';
const THUNDERBOLT = '/sys/bus/thunderbolt/devices';

export const hotPlugChecks: readonly Check[] = [
  {
    id: 'autoprobe-open',
    area: 'hot-plug',
    title: 'A new device gets a driver without anybody deciding',
    severity: 'medium',
    elsewhere: null,
    looksAt: GATED.map((bus) => `/sys/bus/${bus}/drivers_autoprobe`),
    why: 'With drivers_autoprobe on, the kernel binds every device that the host adds, whatever it says it is.',
    fix: 'Boot behind the gate (airlock gate initrd), which turns it off on every bus and binds what the policy allows.',
    reference: 'Documentation/driver-api/driver-model/binding.rst',
    run: (observations) => {
      const wrong: Evidence[] = [];
      const fine: Evidence[] = [];
      for (const bus of GATED) {
        const value = fact(observations, `/sys/bus/${bus}/drivers_autoprobe`);
        if (value.state === 'unknown') return value;
        if (value.state === 'absent') continue;
        (value.text === '0' ? fine : wrong).push(evidence(value.path, value.text));
      }
      return wrong.length + fine.length === 0 ? notApplicable('none of these buses is here') : verdictOf(wrong, fine);
    },
  },
  {
    id: 'pci-hotplug-open',
    area: 'hot-plug',
    title: 'The host can plug in PCI devices while the VM runs',
    severity: 'medium',
    elsewhere: null,
    looksAt: [`${SLOTS}/*/power`, PCIEHP, ACPIPHP],
    why: 'Devices that were not there at launch are in no measurement. Linux 6.1 and 6.12 bind them in spite of drivers_autoprobe=0 when a driver is loaded.',
    fix: 'Have the VMM offer no hot-plug slots; acpiphp.disable=1 and pcie_ports=compat on the command line; platform: { forbid: [hotplug] } in the policy.',
    reference: REFERENCES.parameters,
    run: (observations) => {
      const slots = names(observations, SLOTS);
      const services = names(observations, PCIEHP);
      const acpiphp = fact(observations, ACPIPHP);
      const wrong: Evidence[] = [];
      // pci_slot names slots that nothing can be plugged into; those of acpiphp and pciehp can be powered.
      const powered = (slot: string) => fact(observations, `${SLOTS}/${slot}/power`).state === 'read';
      if (slots.state === 'listed') {
        wrong.push(...slots.names.filter(powered).map((slot) => evidence(`${SLOTS}/${slot}`, 'hot-plug slot')));
      }
      if (services.state === 'listed') {
        const bound = services.names.filter((name) => name.includes(':pcie'));
        wrong.push(...bound.map((name) => evidence(`${PCIEHP}/${name}`, 'hot-plug port')));
      }
      if (wrong.length > 0) return verdictOf(wrong, []);
      if (slots.state === 'unknown') return slots;
      return passed(
        evidence(SLOTS, slots.state === 'listed' ? 'none with power' : 'no slots'),
        ...(acpiphp.state === 'read' ? [evidence(ACPIPHP, acpiphp.text)] : []),
      );
    },
  },
  {
    id: 'usb-authorized-by-default',
    area: 'hot-plug',
    title: 'Every USB device that is plugged in is used at once',
    severity: 'medium',
    elsewhere: 'info',
    looksAt: [`${USB}/usb*/authorized_default`],
    why: 'USB drivers are many and trust their devices; a keyboard, a network card or a disk can appear on any port, from the host or from a hand.',
    fix: 'usbcore.authorized_default=0 on the command line, then authorize what is wanted (in a VM: by policy; on a desk: USBGuard).',
    reference: 'Documentation/usb/authorization.rst',
    run: (observations) => {
      const devices = names(observations, USB);
      if (devices.state === 'unknown') return devices;
      const controllers = devices.state === 'absent' ? [] : devices.names.filter((name) => /^usb\d+$/.test(name));
      if (controllers.length === 0) return passed(evidence(USB, 'no USB controller'));
      const wrong: Evidence[] = [];
      const fine: Evidence[] = [];
      for (const name of controllers) {
        const value = fact(observations, `${USB}/${name}/authorized_default`);
        if (value.state === 'unknown') return value;
        if (value.state === 'absent') continue;
        (value.text === '0' ? fine : wrong).push(evidence(value.path, value.text));
      }
      return wrong.length + fine.length === 0 ? unknown(USB, 'the controllers have gone') : verdictOf(wrong, fine);
    },
  },
  {
    id: 'thunderbolt-open',
    area: 'hot-plug',
    title: 'Thunderbolt devices get PCIe tunnels without being asked for',
    severity: 'high',
    elsewhere: 'medium',
    looksAt: [`${THUNDERBOLT}/domain*/security`],
    why: 'Security level "none" lets anything on the cable be a PCIe device with DMA.',
    fix: 'Set the security level to "user" or "secure" in the firmware, and check that iommu_dma_protection reads 1.',
    reference: 'Documentation/admin-guide/thunderbolt.rst',
    run: (observations) => {
      const all = names(observations, THUNDERBOLT);
      if (all.state === 'unknown') return all;
      const domains = all.state === 'absent' ? [] : all.names.filter((name) => /^domain\d+$/.test(name));
      if (domains.length === 0) return passed(evidence(THUNDERBOLT, 'no Thunderbolt controller'));
      const wrong: Evidence[] = [];
      const fine: Evidence[] = [];
      for (const name of domains) {
        const value = fact(observations, `${THUNDERBOLT}/${name}/security`);
        if (value.state !== 'read') return unknown(`${THUNDERBOLT}/${name}/security`, 'not readable');
        (value.text === 'none' ? wrong : fine).push(evidence(value.path, value.text));
      }
      return verdictOf(wrong, fine);
    },
  },
  {
    id: 'module-loading-open',
    area: 'hot-plug',
    title: 'The kernel loads modules for whatever device appears',
    severity: 'low',
    elsewhere: null,
    looksAt: ['/proc/sys/kernel/modules_disabled', '/proc/sys/kernel/modprobe'],
    why: 'A device chooses by its ids which of thousands of drivers is loaded for it.',
    fix: 'modules: { disable-loading: after-gate } in the policy, or sysctl kernel.modules_disabled=1 once the system is up.',
    reference: 'Documentation/admin-guide/sysctl/kernel.rst',
    run: (observations) => {
      const disabled = fact(observations, '/proc/sys/kernel/modules_disabled');
      if (disabled.state === 'unknown') return disabled;
      if (disabled.state === 'absent') return passed(evidence(disabled.path, 'absent: this kernel loads no modules'));
      return disabled.text === '1'
        ? passed(evidence(disabled.path, '1'))
        : found(evidence(disabled.path, disabled.text));
    },
  },
];
