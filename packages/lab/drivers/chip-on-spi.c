// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Puts chip 0 of the first VIRTIO SPI controller before spidev: on x86 only firmware says what is on such a bus. The
 * controller unregisters the chip when it goes.
 */
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/spi/spi.h>

static int is_controller(struct device *dev, const void *unused)
{
	return dev->class && !strncmp(dev->class->name, "spi", 3);
}

static int find_controller(struct device *dev, void *found)
{
	struct device *child = device_find_child(dev, NULL, is_controller);

	if (!child)
		return 0;
	*(struct device **)found = child;
	return 1;
}

static int __init chip_on_spi(void)
{
	struct spi_board_info chip = { .modalias = "spi-chip", .max_speed_hz = 1000000 };
	struct pci_dev *pci = pci_get_device(0x1af4, 0x1040 + 45, NULL);
	struct device *dev = NULL;
	struct spi_device *made;

	if (!pci)
		return -ENODEV;
	device_for_each_child(&pci->dev, &dev, find_controller);
	pci_dev_put(pci);
	if (!dev)
		return -ENODEV;
	made = spi_new_device(container_of(dev, struct spi_controller, dev), &chip);
	put_device(dev);
	return made ? 0 : -EIO;
}

static void __exit chip_stays(void)
{
}

module_init(chip_on_spi);
module_exit(chip_stays);
MODULE_DESCRIPTION("A chip on a VIRTIO SPI bus");
MODULE_LICENSE("GPL");
