"""Attribution of feature graphs: node effects from gradients at every site, edges by cutting at every site."""
