/** What the host can hand to firmware, kernel and services beside the devices. */
import { commandLine, optionEvidence } from '../command-line.ts';
import { type Evidence, evidence } from '../evidence.ts';
import { type Check, notApplicable, passed, REFERENCES, unknown, type Verdict, verdictOf } from '../finding.ts';
import { fact, kernelLog, names, type Observations } from '../reading.ts';

const FW_CFG = '/sys/firmware/qemu_fw_cfg/by_key';
const DMI = '/sys/firmware/dmi/entries';
const SERIAL = '/sys/class/dmi/id/product_serial';
const LABELS = '/dev/disk/by-label';
const TABLES = '/sys/firmware/acpi/tables';
const CLOUD_ID = '/run/cloud-init/cloud-id';
/** Taint bit 8: "ACPI table overridden by user". */
const TAINT_ACPI = 8;

/** What Intel's filter lets a TD see, and the event log. Sysfs numbers tables of one name: SSDT1, SSDT2. */
const EXPECTED_TABLES: readonly string[] = ['XSDT', 'FACP', 'DSDT', 'FACS', 'APIC', 'SVKL', 'TDEL', 'CCEL'];

/** Files of fw_cfg that a first-boot configurator runs with as root. */
const PROVISIONING = /^opt\/(com\.coreos\/config|org\.flatcar-linux\/config|io\.cloud-init|cloud-init)/;
const CREDENTIAL = /^opt\/io\.systemd\.credentials\//;

/** Names of the entries of fw_cfg; the values are not read. */
function fwCfg(observations: Observations): { path: string; name: string }[] {
  const keys = names(observations, FW_CFG);
  if (keys.state !== 'listed') return [];
  return keys.names.flatMap((key) => {
    const name = fact(observations, `${FW_CFG}/${key}/name`);
    return name.state === 'read' ? [{ path: name.path, name: name.text }] : [];
  });
}

/** `io.systemd.*` strings of SMBIOS type 11, without their values: those may be secrets. */
export function smbiosNames(raw: string): string[] {
  const found = raw.matchAll(
    /io\.systemd\.(?:credential(?:\.binary)?:[\w.@-]{1,128}|(?:stub|boot)\.[\w.-]{1,64})(?==)/g,
  );
  return [...found].slice(0, 64).map((match) => match[0]);
}

function credentials(observations: Observations): Verdict {
  const wrong = fwCfg(observations)
    .filter(({ name }) => CREDENTIAL.test(name))
    .map(({ path, name }) => evidence(path, name));
  const entries = names(observations, DMI);
  const smbios = entries.state === 'listed' ? entries.names.filter((name) => /^11-\d+$/.test(name)) : [];
  let hidden: Verdict | undefined = entries.state === 'unknown' ? entries : undefined;
  for (const entry of smbios) {
    const raw = fact(observations, `${DMI}/${entry}/raw`);
    if (raw.state === 'read') wrong.push(...smbiosNames(raw.text).map((name) => evidence(raw.path, name)));
    else if (raw.state === 'unknown') hidden = raw;
  }
  if (wrong.length === 0 && hidden !== undefined) return hidden;
  return verdictOf(wrong, [
    evidence(DMI, smbios.length === 0 ? 'no SMBIOS type 11' : 'SMBIOS type 11 without io.systemd names'),
    evidence(FW_CFG, `${fwCfg(observations).length} entries seen, none below opt/io.systemd.credentials`),
  ]);
}

function provisioning(observations: Observations): Verdict {
  const wrong: Evidence[] = fwCfg(observations)
    .filter(({ name }) => PROVISIONING.test(name))
    .map(({ path, name }) => evidence(path, name));
  const labels = names(observations, LABELS);
  const seeds = labels.state === 'listed' ? labels.names.filter((name) => /^(cidata|config-2)$/i.test(name)) : [];
  wrong.push(...seeds.map((name) => evidence(`${LABELS}/${name}`, 'cloud-init seed disk')));
  const serial = fact(observations, SERIAL);
  if (serial.state === 'read' && /^ds=/.test(serial.text)) {
    wrong.push(evidence(SERIAL, serial.text.split(';', 1)[0] ?? ''));
  }
  const line = commandLine(observations);
  const options = ['ds', 'ignition.config.url', 'cloud_config_url', 'coreos.config.url'];
  if (line.state === 'read' && line.options.some(({ name }) => options.includes(name))) {
    wrong.push(evidence('/proc/cmdline', optionEvidence(line, options).value.replace(/([=:])\/\/[^ ]*/g, '$1//...')));
  }
  const cloud = fact(observations, CLOUD_ID);
  if (cloud.state === 'read' && cloud.text !== 'none') wrong.push(evidence(CLOUD_ID, cloud.text));
  if (wrong.length === 0 && line.state === 'unknown') return line;
  return verdictOf(wrong, [
    evidence('/proc/cmdline', 'no configuration source'),
    evidence(LABELS, 'no seed disk'),
    evidence(CLOUD_ID, cloud.state === 'read' ? cloud.text : 'absent'),
  ]);
}

export const hostInputChecks: readonly Check[] = [
  {
    id: 'host-credentials',
    area: 'host-input',
    title: 'The host hands in systemd credentials',
    severity: 'high',
    elsewhere: null,
    looksAt: [`${FW_CFG}/*/name`, `${DMI}/11-*/raw`],
    why: 'Through SMBIOS type 11 or fw_cfg it can set passwords, ssh keys, units and more kernel options. systemd leaves them out where it sees a confidential VM; it does not see one behind every kernel and paravisor, and other programs may read them.',
    fix: 'Have the VMM not pass them, and systemd.import_credentials=no on a measured command line; take credentials from a key broker after attestation.',
    reference: 'systemd.system-credentials(7)',
    run: credentials,
  },
  {
    id: 'host-provisioning',
    area: 'host-input',
    title: 'The machine takes its configuration from the host',
    severity: 'high',
    elsewhere: null,
    looksAt: [`${FW_CFG}/*/name`, LABELS, SERIAL, '/proc/cmdline', CLOUD_ID],
    why: 'cloud-init and Ignition run as root what a seed disk, fw_cfg, SMBIOS or a metadata server of the host says: users, keys, commands.',
    fix: 'Bake the configuration into the measured image, or have it signed; touch /etc/cloud/cloud-init.disabled.',
    reference: REFERENCES.threatModel,
    run: provisioning,
  },
  {
    id: 'fw-cfg-open',
    area: 'host-input',
    title: 'Programs can read what the host puts into fw_cfg',
    severity: 'low',
    elsewhere: null,
    looksAt: [FW_CFG],
    why: 'The qemu_fw_cfg driver shows files of the host to whoever looks for configuration there.',
    fix: 'module_blacklist=qemu_fw_cfg; nothing in a hardened guest needs it.',
    reference: 'Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg',
    run: (observations) => {
      const keys = names(observations, FW_CFG);
      if (keys.state === 'unknown') return keys;
      return keys.state === 'absent'
        ? passed(evidence(FW_CFG, 'absent'))
        : verdictOf([evidence(FW_CFG, `${keys.names.length} entries`)], []);
    },
  },
  {
    id: 'acpi-table-overridden',
    area: 'host-input',
    title: 'An ACPI table was replaced or added after the firmware',
    severity: 'high',
    elsewhere: 'medium',
    looksAt: ['/proc/sys/kernel/tainted', 'kernel log', '/sys/kernel/config/acpi/table'],
    why: 'AML runs in the kernel with access to all of memory. A table from an initrd or from configfs is code that no firmware measurement covers.',
    fix: 'Take the tables out of the initramfs (kernel/firmware/acpi), and boot with lockdown=integrity, which refuses new ones.',
    reference: 'Documentation/admin-guide/acpi/initrd_table_override.rst',
    run: (observations) => {
      const tainted = fact(observations, '/proc/sys/kernel/tainted');
      if (tainted.state !== 'read' || !/^\d{1,15}$/.test(tainted.text)) {
        return unknown(tainted.path, tainted.state === 'unknown' ? tainted.because : 'not a number');
      }
      const mask = Number(tainted.text);
      const wrong: Evidence[] = [];
      if (Math.floor(mask / 2 ** TAINT_ACPI) % 2 === 1) {
        wrong.push(evidence(tainted.path, `${mask}: A (ACPI table overridden)`));
      }
      const log = kernelLog(observations);
      if (log.state === 'read') {
        const lines = log.text
          .split('\n', 20_000)
          .filter((line) => /ACPI: Table Upgrade: (install|override)|ACPI: .* ACPI table found in initrd/.test(line));
        wrong.push(...lines.slice(0, 8).map((line) => evidence(log.path, line)));
      }
      const loaded = names(observations, '/sys/kernel/config/acpi/table');
      if (loaded.state === 'listed') {
        wrong.push(...loaded.names.map((name) => evidence(`${loaded.path}/${name}`, 'loaded at run time')));
      }
      return verdictOf(wrong, [evidence(tainted.path, `${mask}: no A`)]);
    },
  },
  {
    id: 'acpi-tables-unexpected',
    area: 'host-input',
    title: 'The firmware brings ACPI tables that a hardened guest does not need',
    severity: 'low',
    elsewhere: null,
    looksAt: [TABLES],
    why: `Tables come from the VMM, and each is parsed (SSDT: run) by code that was not audited for it. Intel lets ${EXPECTED_TABLES.slice(0, 7).join(', ')} through.`,
    fix: 'Have the VMM leave out what it can (HPET, MCFG with pci=nommconf, WAET, SSDTs), and have the verifier check the measurement of the rest (CCEL).',
    reference: REFERENCES.intelAcpi,
    run: (observations) => {
      const tables = names(observations, TABLES);
      if (tables.state === 'unknown') return tables;
      if (tables.state === 'absent') return notApplicable('no ACPI');
      const all = tables.names.filter((name) => /^[A-Z0-9!_]{3,6}$/.test(name));
      const wrong = all.filter((name) => !EXPECTED_TABLES.includes(name.slice(0, 4)));
      return verdictOf(wrong.length === 0 ? [] : [evidence(TABLES, wrong.join(' '))], [
        evidence(TABLES, all.length === 0 ? 'none' : all.join(' ')),
      ]);
    },
  },
];
